"""The documentation runs: commands parse, imports exist, the README example makes a video, links lead somewhere."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest

from echopulse.cli.main import _parse
from echopulse.errors import InputError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DEMO = ROOT / "src" / "echopulse" / "weights" / "demo_ecg"


def blocks(page: Path, language: str = r"\w*") -> list[str]:
    """What stands in a page's fenced blocks, lines that go on joined."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [re.sub(r"[ \t]*\\\n\s*", " ", block) for block in found]


def commands(page: Path) -> list[str]:
    """Commands of a page without their comments; synopses with brackets are left out."""
    lines = (line for block in blocks(page) for line in block.splitlines())
    typed = (re.match(r"(?:\$ )?(echopulse \w.*)", line) for line in lines)
    return [re.split(r"\s{2,}|\s#", one[1])[0] for one in typed if one and "[--" not in one[1]]


def links(page: Path) -> list[tuple[Path, str]]:
    """Files and headings of this project that a page leads to."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    pairs = [target.partition("#")[::2] for target in targets if not re.match(r"\w+:", target)]
    return [(page.parent / file if file else page, heading) for file, heading in pairs]


def anchors(page: Path) -> set[str]:
    """Headings of a page as a link names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", sorted({command for page in PAGES for command in commands(page)}))
def test_every_command_of_the_documentation_parses(command: str) -> None:
    assert callable(_parse(shlex.split(command)[1:]))


def test_a_command_with_an_option_that_is_not_there_would_be_found() -> None:
    with pytest.raises(InputError):
        _parse(["generate", "record.hea", "-o", "echo.mp4", "--no-such-option", "1"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), f"{page.name} leads to {target.name}"
        assert not heading or heading in anchors(target), f"{page.name} leads to {target.name}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_are_python_and_what_they_import_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module([*imports], []), page.name, "exec"), {})


def test_the_readme_example_makes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = (DEMO / "demo.hea").read_text(encoding="ascii")
    (tmp_path / "record.hea").write_text(header.replace("demo", "record"), encoding="ascii")
    shutil.copy(DEMO / "demo.dat", tmp_path / "record.dat")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(ROOT / "README.md", "python")
    exec(example, {})
    assert (tmp_path / "echo.mp4").stat().st_size > 10_000
