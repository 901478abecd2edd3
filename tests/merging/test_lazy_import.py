"""Errors and choices of the heart come without torch, its public names from the top."""

from __future__ import annotations

import subprocess
import sys

import pytest

import statsmerging.merging


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["statsmerging", "statsmerging.merging.errors", "statsmerging.choices"]
)
def test_without_torch(module: str) -> None:
    assert run(f"import sys, {module}; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("name", statsmerging.merging.__all__)
def test_every_public_name_is_importable(name: str) -> None:
    assert run(f"from statsmerging.merging import {name}; print({name}.__name__)") == name


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'bank_of_england'"):
        statsmerging.merging.bank_of_england  # noqa: B018
