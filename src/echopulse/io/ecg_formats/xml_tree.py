"""XML of ECG carts: a tree without namespaces, with nothing expanded or fetched."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from echopulse.errors import InputError

MAX_BYTES = 1 << 27
_MAX_ELEMENTS = 1_000_000
_DECLARATION = re.compile(r"""<\?xml[^>]*?encoding\s*=\s*["']([\w.\-]+)["']""")
_ROOT = re.compile(r"<(?:[\w.\-]+:)?([A-Za-z_][\w.\-]*)[\s/>]")
_SKIPPED = re.compile(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\])?\s*>", re.DOTALL)


def root_name(head: bytes) -> str | None:
    """Name of the root element if a file begins like XML, without its namespace prefix."""
    text = decode(head).lstrip()
    if not text.startswith("<"):
        return None
    match = _ROOT.match(_SKIPPED.sub("", text).lstrip())
    return match[1] if match else None


def decode(content: bytes) -> str:
    """XML as text: by its byte order mark, otherwise by its declaration, otherwise as UTF-8."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(name, errors="replace")
    declared = _DECLARATION.match(content[:200].decode("latin-1"))
    name = declared[1].lower() if declared else "utf-8"
    try:
        return content.decode("utf-8" if name.startswith("utf-16") else name, errors="replace")
    except LookupError:
        return content.decode("latin-1")


def read_tree(path: Path) -> Element:
    """Reads an XML file.

    Raises:
        InputError: too large, not well formed, or with entities of its own.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: XML of {path.stat().st_size} bytes; expected at most {MAX_BYTES}")
    builder, count = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > _MAX_ELEMENTS:
            raise InputError(f"{path}: more than {_MAX_ELEMENTS} XML elements")
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def refuse_entity(*_: object) -> None:
        raise InputError(f"{path}: the XML declares entities; no ECG format does, so it is refused")

    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: builder.end(_local(name))
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse_entity
    try:
        parser.Parse(decode(path.read_bytes()).encode(), True)
    except expat.ExpatError as error:
        raise InputError(f"{path}: damaged XML: {error}") from error
    return builder.close()


def text_of(element: Element | None, path: str) -> str:
    """Text of the first element at a path below another, without surrounding blanks; "" where there is none."""
    return "" if element is None else (element.findtext(path) or "").strip()


def number_of(file: Path, element: Element | None, path: str) -> float:
    """A number below an element.

    Raises:
        InputError: there is none.
    """
    text = text_of(element, path)
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{file}: {path} is {text[:40]!r}; expected a number") from error


def _local(name: str) -> str:
    return name.rpartition(":")[2]
