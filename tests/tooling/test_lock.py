"""The lock file has what the constraints and pyproject.toml ask for, with hashes."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Name → version of every ``NAME==VERSION``."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {plain(name): version for name, version in found}


def test_the_versions_are_those_of_the_constraints() -> None:
    tested, locked = pins((ROOT / "constraints.txt").read_text()), pins(LOCK)
    assert {name: locked[name] for name in locked.keys() & tested.keys()}.items() <= tested.items()
    for name in locked.keys() - tested.keys():  # what another system than Linux needs
        (condition,) = re.findall(rf"^{name}==[^;]*;(.*)", LOCK, re.MULTILINE | re.IGNORECASE)
        assert "sys_platform == " in condition
        assert "linux" not in condition


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["docs"], *extras["loggers"], *extras["dev"]]
    names = {plain(re.split(r"[\[<>=]", each)[0]) for each in needed} - {"statsmerging"}
    assert names <= pins(LOCK).keys()


def test_every_package_has_hashes() -> None:
    entries = re.split(r"^(?=[A-Za-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(LOCK))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
