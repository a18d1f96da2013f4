"""The command line as tests call it."""

from pathlib import Path

from echopulse.cli.main import main


def run(*arguments: object) -> int:
    """Exit code of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a set."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
