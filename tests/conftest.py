"""Switches on the run-time check of every annotation of the package, array shapes included.

The hook has to stand before the first import of `echopulse`, so pytest loads it from here. Users never
pay for it. An int is accepted where a float is asked for, as type checkers do.
"""

from jaxtyping import install_import_hook

install_import_hook("echopulse", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
