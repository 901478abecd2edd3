"""The configuration reference has every key of conf/, with the comment that stands there."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import configuration
import pytest
import yaml
from commented_yaml import read

from tests.conftest import ROOT

CONF = ROOT / "conf"
FILES = [
    file.relative_to(CONF)
    for file in sorted(CONF.rglob("*.yaml"))
    if file.relative_to(CONF).parts[0] not in configuration.PARTS
]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Page → its words: no escapes, no addresses of links, one blank between two words."""

    def words(markdown: str) -> str:
        text = re.sub(r"\\([\\*_\[\]|#])", r"\1", markdown)
        text = re.sub(r"\[([^\]\n]*)\]\([^)\n]*\.md\)", r"\1", text)
        return " ".join(html.unescape(text).split())

    made = configuration.pages(CONF)
    return {address: words(text) for address, text in made.items()}


def page_of(file: Path) -> str:
    return configuration.address(file.parts[0] if len(file.parts) > 1 else "index")


def keys(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{above}{name}.")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_key_and_every_comment_is_there(file: Path, pages: dict[str, str]) -> None:
    text, page = (CONF / file).read_text(), pages[page_of(file)]
    values = yaml.safe_load(text)
    values.pop("defaults", None)
    for key in keys(values):  # an entry of a long list of names stands in a block
        assert f"{key}`{{" in page or f"{key.rsplit('.')[-1]}: " in page, key
    for comment in re.findall(r"^ *# (?!@package)(.+)$", text, re.MULTILINE):
        assert " ".join(comment.split()) in page


def test_a_key_has_its_default_its_comment_and_what_is_valid(pages: dict[str, str]) -> None:
    trainer = pages[configuration.address("trainer")]
    assert (
        "`trainer.accumulate`{ #default-trainer.accumulate } = `joint` · `joint` | `per_task` "
        ": joint: one forward over all tasks | per_task: one task's activations at a time"
        in trainer
    )
    ties = pages[configuration.address("method")]
    assert "`method.ties.density`{ #ties-method.ties.density } = `0.2` · number above 0" in ties


def test_every_choice_is_a_heading(pages: dict[str, str]) -> None:
    for file in FILES:
        group, *rest = file.with_suffix("").parts
        if rest and group != "hydra" and rest[0] != "base":
            assert f"## {group}={'/'.join(rest)} " in pages[page_of(file)]


def test_comments_belong_to_the_key_below_or_beside_them(tmp_path: Path) -> None:
    file = tmp_path / "group.yaml"
    file.write_text(
        "# What it is,\n# in two lines.\n# Of the first key.\nfirst: 1\nsecond: 2\n\nalone: 3\n"
        "# A section.\nsection:\n  inner: [1, 2]   # beside\n  block:\n    - a\n    - b\n"
        "  last: x\n"
    )
    read_back = read(file)
    assert read_back.heading == "What it is, in two lines."
    assert [(key.path, key.default, key.comment) for key in read_back.keys] == [
        ("first", "1", "Of the first key."),
        ("second", "2", "Of the first key."),
        ("alone", "3", ""),
        ("section", None, "A section."),
        ("section.inner", "[1, 2]", "beside"),
        ("section.block", "[a, b]", "beside"),
        ("section.last", "x", "beside"),
    ]
