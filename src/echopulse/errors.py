"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """A user's mistake, told in one line: what was got, what was expected, how to fix it.

    The command line prints it on stderr and exits with code 2. Broken invariants of our own
    are `assert`s and never this class.
    """
