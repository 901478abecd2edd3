"""Checkpoints: whole or not there, noticed where they are damaged, and never lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from statsmerging.errors import UserError
from statsmerging.learning.trainer import CheckedCheckpoints, continue_from, forget


def saved(path: Path, *steps: int) -> Path:
    """A training that has left a checkpoint at each of these steps."""
    for step in steps:
        CheckedCheckpoints().save_checkpoint(content(step), path)
    return path


def content(step: int) -> dict[str, Any]:
    return {"step": step, "state": torch.arange(500.0) + step, "rate": [1e-3, None]}


def step_of(path: Path | None) -> int | None:
    return None if path is None else int(CheckedCheckpoints().load_checkpoint(path)["step"])


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path / "checkpoints" / "free.ckpt", 7)
    loaded = CheckedCheckpoints().load_checkpoint(path)
    assert torch.equal(loaded.pop("state"), torch.arange(500.0) + 7)
    assert loaded == {"step": 7, "rate": [1e-3, None]}
    assert continue_from(path) == path


def test_the_checkpoint_before_is_kept_and_no_more(tmp_path: Path) -> None:
    path = saved(tmp_path / "free.ckpt", 1, 2, 3)
    assert step_of(continue_from(path)) == 3
    path.unlink()
    assert step_of(continue_from(path)) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_checkpoint_training_starts_anew(tmp_path: Path) -> None:
    assert continue_from(tmp_path / "free.ckpt") is None


def flip(file: Path, place: random.Random) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[place.randrange(len(damaged))] ^= 1 << place.randrange(8)
    file.write_bytes(damaged)


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    place = random.Random(0)
    for trial in range(24):
        path = saved(tmp_path / f"{trial}.ckpt", 1, 2)
        flip(path, place)
        with pytest.raises(UserError, match="is not what was written there"):
            CheckedCheckpoints().load_checkpoint(path)
        assert step_of(continue_from(path)) == 1


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def foreign(file: Path) -> None:
    """As Lightning writes it by itself, and as earlier versions did."""
    torch.save(content(9), file)


def link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [half, empty, foreign, link])
def test_what_is_damaged_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    path = saved(tmp_path / "free.ckpt", 1, 2)
    damage(path)
    damaged = path.read_bytes()
    assert step_of(continue_from(path)) == 1
    assert not path.exists()
    assert caplog.messages[0].startswith(f"{path} is not what was written there: set aside as ")
    if damage is not link:
        (aside,) = tmp_path.glob("free.ckpt.*.damaged/free.ckpt")
        assert aside.read_bytes() == damaged


def test_two_damaged_checkpoints_start_the_training_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "free.ckpt", 1, 2)
    for file in list(tmp_path.iterdir()):
        half(file)
    assert continue_from(path) is None
    assert caplog.messages[-1] == "no sound checkpoint is left: the training starts anew"
    assert step_of(saved(path, 3)) == 3


@pytest.mark.parametrize("at", [1, 2], ids=["before any name", "before the new one's name"])
def test_a_kill_while_one_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    path = saved(tmp_path / "free.ckpt", 1)
    replace, calls = Path.replace, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            saved(path, 2)
    assert step_of(continue_from(path)) == 1


def test_a_full_disk_while_one_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "free.ckpt", 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            saved(path, 2)
    assert step_of(continue_from(path)) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_a_training_that_is_safe_leaves_none(tmp_path: Path) -> None:
    path = saved(tmp_path / "free.ckpt", 1, 2)
    forget(path)
    assert not list(tmp_path.iterdir())
