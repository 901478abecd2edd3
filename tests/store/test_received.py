"""Files of strangers: what is read, and what is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from statsmerging.errors import printable
from statsmerging.store.received import (
    ReceivedError,
    is_plain_name,
    received_file,
    received_json,
    received_yaml,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_config_that_omegaconf_wrote_is_read_as_it_was(folder: Path) -> None:
    config = {"rate": 1e-5, "text": "1e-5", "day": "2026-01-01", "list": [1, None, True], "λ": "é"}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    assert received_yaml(folder, "config.yaml") == config


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "", "a/../../secret"])
def test_names_do_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("{}")
    with pytest.raises(ReceivedError):
        received_file(folder, name)


def test_links_are_not_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(outside / "secret.json")
    (folder / "linked").symlink_to(outside)
    for name in ("link.json", "linked/secret.json"):
        with pytest.raises(ReceivedError, match="links are not followed"):
            received_json(folder, name)


def test_a_folder_that_the_user_named_may_be_a_link(folder: Path) -> None:
    (folder / "results.json").write_text('{"seed": 0}')
    (folder.parent / "shortcut").symlink_to(folder)
    assert received_json(folder.parent / "shortcut", "results.json") == {"seed": 0}


def test_a_pipe_is_refused_instead_of_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "results.json")
    with pytest.raises(ReceivedError, match="no regular file"):
        received_json(folder, "results.json")


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"\xff\xfe", b"[" * 200_000, b'{"a": 1} x'], ids=range(5)
)
def test_broken_json_is_named(folder: Path, content: bytes) -> None:
    (folder / "results.json").write_bytes(content)
    with pytest.raises(ReceivedError, match=r"results\.json"):
        received_json(folder, "results.json")


@pytest.mark.parametrize(
    "content",
    [
        "a: &x [1, 2]\nb: [*x, *x]",
        "token: ${oc.env:HOME}",
        "deep:\n  list: [{a: '${oc.env:HOME}'}]",
        "a: !!python/object/apply:os.getcwd []",
        "a: [1",
        "[" * 5000,
        "a: ${",
    ],
)
def test_yaml_that_is_no_resolved_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.yaml").write_text(content)
    with pytest.raises(ReceivedError, match=r"config\.yaml"):
        received_yaml(folder, "config.yaml")


def test_what_moves_a_cursor_is_shown_as_its_code() -> None:
    assert printable("a\x1b[2J\nb\u202ec\x9b") == r"a\x1b[2J\nb\u202ec\x9b"
    assert printable("Straße λ 数字 🙂") == "Straße λ 数字 🙂"


@pytest.mark.parametrize("name", ["ties", "tsv_m", "stats-merging.2", "C++", "λ"])
def test_plain_names(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", ".hidden", "a b", "a\nb", "_a", "a\x1b"]
)
def test_names_that_are_no_part_of_a_path(name: str) -> None:
    assert not is_plain_name(name)
