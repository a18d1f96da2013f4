"""Frozen dataclasses to JSON and back, strict both ways.

A field that the class does not have, a field without value, or a value of another type is an
error that names it: a config that was silently read half is worse than none.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from echopulse.errors import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A (nested) frozen dataclass as plain JSON values; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], data: Any, where: str = "config") -> T:
    """Builds a dataclass from plain values.

    Args:
        cls: the dataclass.
        data: mapping with exactly the fields of `cls`; fields with a default may be missing.
        where: name used in messages.

    Raises:
        InputError: unknown, missing or wrongly typed field.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: got {type(data).__name__}, expected an object with the fields of {cls.__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise InputError(f"{where}: unknown field {', '.join(unknown)}; {cls.__name__} has {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: missing field {', '.join(missing)} of {cls.__name__}")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: got {value!r}, expected a list")
        return tuple(_convert(args[0], item, where) for item in value)
    if origin is typing.Literal:
        if value not in args:
            raise InputError(f"{where}: got {value!r}, expected one of {', '.join(map(str, args))}")
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise InputError(f"{where}: got {value!r}, expected {getattr(hint, '__name__', hint)}")


def save_json(path: Path, data: Any) -> None:
    """Writes JSON under a temporary name, then renames: never half a file."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        InputError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
