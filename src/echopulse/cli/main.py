"""Entry point of `echopulse`: finds the verb, turns a user's mistake into one line and exit code 2."""

import sys
from collections.abc import Sequence

import tyro

from echopulse.cli.demo import demo
from echopulse.cli.generate import generate
from echopulse.cli.info import info
from echopulse.cli.simulate import simulate
from echopulse.cli.train import train
from echopulse.errors import InputError

_COMMANDS = {
    "demo": demo,
    "generate": generate,
    "simulate": simulate,
    "train": train,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on a user's mistake and 130 on Ctrl-C."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            _COMMANDS,
            prog="echopulse",
            description="An ECG goes in, an echocardiogram video comes out. Synthetic, not for diagnosis.",
            args=None if argv is None else list(argv),
        )
    except (InputError, OSError) as error:
        print(f"echopulse: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("echopulse: interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)
