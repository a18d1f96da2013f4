"""Dataclasses to JSON and back: what went in comes out, and nothing else is let in."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from echopulse.config import from_dict, load_json, save_json, to_dict
from echopulse.errors import InputError


@dataclass(frozen=True)
class Layer:
    width: int
    rate: float = 0.5


@dataclass(frozen=True)
class Network:
    name: str
    layer: Layer
    kind: Literal["lfq", "fsq"] = "lfq"
    sizes: tuple[int, ...] = (1, 2)
    layers: tuple[Layer, ...] = ()
    seed: int | None = None
    head: Layer | None = None
    causal: bool = True
    notes: tuple[str, ...] = field(default_factory=lambda: ("a",))

    def __post_init__(self) -> None:
        if self.layer.width == 0:
            raise InputError("width is 0; expected a positive number")


FULL = Network(
    "n",
    Layer(8, 0.25),
    kind="fsq",
    sizes=(3, 1, 4),
    layers=(Layer(1), Layer(2, 1.5)),
    seed=7,
    head=Layer(9),
    causal=False,
    notes=(),
)


def plain(**changes: Any) -> dict[str, Any]:
    return {"name": "n", "layer": {"width": 8}} | changes


@pytest.mark.parametrize("network", [FULL, Network("µ", Layer(1))], ids=["all fields", "defaults"])
def test_round_trip_through_json(network: Network) -> None:
    assert from_dict(Network, json.loads(json.dumps(to_dict(network)))) == network


def test_to_dict_holds_plain_json_values() -> None:
    values = to_dict(FULL)
    assert values["sizes"] == [3, 1, 4]
    assert values["layers"] == [{"width": 1, "rate": 0.5}, {"width": 2, "rate": 1.5}]
    assert values["head"] == {"width": 9, "rate": 0.5}


def test_fields_with_a_default_may_be_missing() -> None:
    assert from_dict(Network, plain()) == Network("n", Layer(8))


def test_an_int_becomes_a_float_where_a_float_is_asked_for() -> None:
    rate = from_dict(Layer, {"width": 1, "rate": 2}).rate
    assert type(rate) is float
    assert rate == 2.0


def test_optional_takes_null_and_a_value() -> None:
    assert from_dict(Network, plain(seed=None, head=None)) == Network("n", Layer(8))
    assert from_dict(Network, plain(seed=3, head={"width": 2})) == Network("n", Layer(8), seed=3, head=Layer(2))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (plain(widht=1), "config: unknown field widht; Network has name, layer, "),
        (plain(b=1, a=1), "config: unknown field a, b;"),
        ({"name": "n"}, "config: missing field layer of Network"),
        ({}, "config: missing field name, layer of Network"),
        (plain(name=1), "config.name: got 1, expected str"),
        (plain(name=None), "config.name: got None, expected str"),
        (plain(causal=1), "config.causal: got 1, expected bool"),
        (plain(seed=1.0), "config.seed: got 1.0, expected int"),
        (plain(seed=True), "config.seed: got True, expected int"),
        (plain(seed="1"), "config.seed: got '1', expected int"),
        (plain(kind="vq"), "config.kind: got 'vq', expected one of lfq, fsq"),
        (plain(sizes=3), "config.sizes: got 3, expected a list"),
        (plain(sizes="123"), "config.sizes: got '123', expected a list"),
        (plain(sizes=[1, "2"]), "config.sizes: got '2', expected int"),
        (plain(layer=[8]), "config.layer: got list, expected an object with the fields of Layer"),
        (plain(layer={"width": 8, "depth": 1}), "config.layer: unknown field depth; Layer has width, rate"),
        (plain(layer={"rate": 1.0}), "config.layer: missing field width of Layer"),
        (plain(layer={"width": 8, "rate": True}), "config.layer.rate: got True, expected float"),
        (plain(layer={"width": 8, "rate": "1"}), "config.layer.rate: got '1', expected float"),
        (plain(layers=[{"width": 1}, {"with": 1}]), "config.layers: unknown field with;"),
        (plain(head={"width": "9"}), "config.head.width: got '9', expected int"),
        ([], "config: got list, expected an object with the fields of Network"),
        (None, "config: got NoneType, expected an object with the fields of Network"),
    ],
)
def test_anything_else_is_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(Network, data)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_where_names_the_file() -> None:
    with pytest.raises(InputError, match=r"^model/config\.json\.width: got 'x'"):
        from_dict(Layer, {"width": "x"}, where="model/config.json")


def test_the_checks_of_the_dataclass_run() -> None:
    with pytest.raises(InputError, match="width is 0"):
        from_dict(Network, plain(layer={"width": 0}))


def test_save_then_load(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    save_json(path, to_dict(FULL))
    assert from_dict(Network, load_json(path)) == FULL
    assert path.read_text(encoding="utf-8").endswith("}\n")


def test_save_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    save_json(path, {"long": list(range(100))})
    save_json(path, {"a": 1})
    assert load_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["json.dumps", "pathlib.Path.write_text", "pathlib.Path.replace"])
def test_a_failed_save_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "config.json"
    save_json(path, {"a": 1})

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="disk full"):
        save_json(path, {"a": 2})
    monkeypatch.undo()
    assert load_json(path) == {"a": 1}


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json: no such file"):
        load_json(tmp_path / "nowhere.json")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"{'a': 1}", b"\xff\xfe\x00", b"\x80"])
def test_load_refuses_what_is_not_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.json: not valid JSON") as caught:
        load_json(path)
    assert "\n" not in str(caught.value)
