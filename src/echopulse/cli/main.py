"""Entry point of `echopulse`: finds the verb, turns a user's mistake into one line and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from io import StringIO
from typing import Any

import tyro

from echopulse.cli.convert import convert
from echopulse.cli.demo import demo
from echopulse.cli.evaluate import evaluate
from echopulse.cli.generate import generate
from echopulse.cli.info import info
from echopulse.cli.prepare import prepare
from echopulse.cli.reconstruct import reconstruct
from echopulse.cli.simulate import simulate
from echopulse.cli.synthesize import synthesize
from echopulse.cli.train import train
from echopulse.errors import InputError

_COMMANDS = {
    "demo": demo,
    "generate": generate,
    "simulate": simulate,
    "synthesize": synthesize,
    "prepare": prepare,
    "train": train,
    "reconstruct": reconstruct,
    "convert": convert,
    "evaluate": evaluate,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 on a user's mistake and 130 on Ctrl-C."""
    try:
        _parse(argv)()
    except (InputError, OSError) as error:
        print(f"echopulse: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("echopulse: interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)


def _parse(argv: Sequence[str] | None) -> Callable[[], None]:
    """The command with its arguments, ready to run.

    Raises:
        InputError: what the parser says in a frame, in one line.
    """
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(command) for name, command in _COMMANDS.items()},
                prog="echopulse",
                description="An ECG goes in, an echocardiogram video comes out. Synthetic, not for diagnosis.",
                args=None if argv is None else list(argv),
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise InputError(_unframed(said.getvalue())) from None
        raise


def _deferred(command: Callable[..., None]) -> Callable[..., Any]:
    @wraps(command)
    def with_arguments(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return partial(command, *args, **kwargs)

    return with_arguments


def _unframed(text: str) -> str:
    """The first part of the parser's framed message; below it, it only points to the help."""
    rows = [row.strip("│╭╮╰╯ ") for row in text.splitlines()[1:]]
    end = next((i for i, row in enumerate(rows) if row.startswith("───")), len(rows))
    return f"{' '.join(rows[:end]).rstrip('.')}; see `echopulse --help`"
