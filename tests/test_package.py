"""The package as a whole: what importing it loads, its version, its public names."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import echopulse
from echopulse.signals import EcgSignal

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

HEAVY = {"accelerate", "av", "matplotlib", "neurokit2", "pandas", "scipy", "sklearn", "torch", "wfdb"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_no_heavy_library() -> None:
    loaded = modules_after("import echopulse")
    assert "echopulse" in loaded
    assert not loaded & HEAVY


def test_the_probe_sees_a_heavy_library() -> None:
    assert "scipy" in modules_after("import scipy")


def test_version_is_that_of_the_project_file() -> None:
    assert echopulse.__version__ == PROJECT["version"]


def test_installed_version_is_that_of_the_package() -> None:
    try:
        installed = importlib.metadata.version("echopulse")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("echopulse is not installed, only on the path")
    assert installed == echopulse.__version__


@pytest.mark.parametrize("name", echopulse.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(echopulse, name) is not None


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'EchoPlus'"):
        echopulse.EchoPlus  # noqa: B018


@pytest.mark.parametrize("target", PROJECT["scripts"].values())
def test_console_script_points_at_a_function(target: str) -> None:
    module, function = target.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_annotations_are_checked_in_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        EcgSignal(np.zeros((1, 500)), ("II",), "250")  # type: ignore[arg-type]


def test_an_int_passes_for_a_float() -> None:
    assert EcgSignal(np.zeros((1, 500)), ("II",), 250).sampling_rate_hz == 250.0
