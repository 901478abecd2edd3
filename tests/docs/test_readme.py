"""README fits a screen, and its links lead to files and headings that exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

slugs = pytest.importorskip("pymdownx.slugs", reason="needs mkdocs: pip install '.[docs]'")
TEXT = (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", prose)
    assert links
    for target, anchor in links:
        path = ROOT / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in map(slugs.slugify(case="lower"), headings, ["-"] * len(headings))


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 80


def test_every_table_shows_averages_before_single_tasks() -> None:
    """A repository page cuts what is right of its width."""
    for header in re.findall(r"^\| method .*", TEXT, re.MULTILINE):
        columns = [cell.strip() for cell in header.strip("|").split("|")]
        assert columns[2] == "average"
