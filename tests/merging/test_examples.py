"""Examples in the docstrings of the heart run as they stand there."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

import statsmerging.merging

MODULES = ["statsmerging.merging"] + [
    module.name for module in walk_packages(statsmerging.merging.__path__, "statsmerging.merging.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


def test_the_public_names_have_an_example() -> None:
    assert doctest.DocTestFinder().find(statsmerging.merging)[0].examples
