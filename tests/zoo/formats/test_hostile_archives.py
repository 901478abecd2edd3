"""Hostile and damaged archives: tensors that are not there, bombs, cut and foreign files."""

from __future__ import annotations

import os
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from statsmerging.errors import UserError
from statsmerging.zoo.formats.pickled import read_pickled
from tests.zoo.formats.genuine import FIXTURES
from tests.zoo.formats.hostile import Call, Storage, archive, program, refusal, tensor

ENCODER = FIXTURES / "task_vectors_encoder.pt"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (tensor(Storage("0", 2**40), (2**40,), (1,)), "has 16 bytes, not the 4398046511104"),
        (tensor(Storage("0", 4), (2**20, 2**20), (0, 0)), "does not fit into its storage"),
        (tensor(Storage("0", 4), (4,), (1,), offset=1), "does not fit into its storage"),
        (tensor(Storage("0", 4), (2, 2), (3, 1)), "does not fit into its storage"),
        (tensor(Storage("0", 4), (4,), (-1,), offset=3), "does not fit into its storage"),
        (tensor(Storage("0", 4), (-4,), (1,)), "does not fit into its storage"),
        (tensor(Storage("0", 4), (4,), (1, 1)), "does not fit into its storage"),
        (tensor(Storage("0", 4), (2**100, 0), (1, 1)), "does not fit into its storage"),
        (tensor(Storage("0", 4), (1,) * 100_000, (1,) * 100_000), "does not fit into its storage"),
        (tensor(Storage("1", 4), (4,), (1,)), "has no entry 'data/1'"),
        (tensor(Storage("../../x", 4), (4,), (1,)), "has no entry 'data/../../x'"),
        (Call(torch._utils._rebuild_tensor_v2, "x", 0, (1,), (1,)), "'w' has no storage"),
        (Call(torch._utils._rebuild_tensor_v2), "'w' is no tensor"),
        (3, "'w' is no tensor"),
    ],
)
def test_tensors_that_are_not_there(value: Any, expected: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "model.pt", program({"w": value}), {"0": bytes(16)})
    assert expected in refusal(path)


def test_one_storage_shown_many_times(tmp_path: Path) -> None:
    shown = {str(index): tensor(Storage("0", 1 << 16), (1 << 16,), (1,)) for index in range(50)}
    path = archive(tmp_path / "model.pt", program(shown), {"0": bytes(1 << 18)})
    assert "its tensors together are far larger than the file" in refusal(path)


def test_archives_that_are_none(tmp_path: Path) -> None:
    whole = ENCODER.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[:-100])
    assert "is no whole zip archive of torch.save" in refusal(cut)

    plain = tmp_path / "plain.pt"
    plain.write_bytes(program(Call(os.system, f"touch {tmp_path}/ran")))
    assert "is no whole zip archive" in refusal(plain)

    legacy = tmp_path / "legacy.pt"
    torch.save({"w": torch.zeros(2)}, legacy, _use_new_zipfile_serialization=False)
    assert "a file of torch < 1.6 has to be saved again" in refusal(legacy)

    tar = tmp_path / "tar.pt"
    with tarfile.open(tar, "w") as file:
        file.add(plain, "pickle")
    assert "is no whole zip archive" in refusal(tar)
    assert not (tmp_path / "ran").exists()


def test_zip_bombs(tmp_path: Path) -> None:
    bomb = archive(
        tmp_path / "bomb.pt",
        program({"w": tensor(Storage("0", 1 << 24), (1 << 24,), (1,))}),
        {"0": bytes(1 << 26)},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 1 << 18
    assert "is compressed or encrypted; torch.save writes plain entries" in refusal(bomb)

    overlapping = tmp_path / "overlapping.pt"
    with zipfile.ZipFile(overlapping, "w") as file:
        file.writestr("model/data.pkl", b"\x80\x02}.")
        file.writestr("model/data/0", bytes(1 << 16))
        file.filelist += [file.getinfo("model/data/0")] * 500
    assert "its entries claim more bytes than the file has" in refusal(overlapping)


def test_archives_of_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("a.txt", "x")
    assert "is no archive of torch.save: no single data.pkl" in refusal(other)
    script = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    assert "is compressed or encrypted" in refusal(script)
    big = archive(tmp_path / "big.pt", b"\x80\x02}.")
    big.write_bytes(big.read_bytes().replace(b"little", b"bigger"))
    assert "is a broken zip archive" in refusal(big)


def outcome(path: Path) -> str:
    """Message of a refusal, empty if the file is read; anything else fails the test."""
    try:
        read_pickled(path)
    except UserError as error:
        return str(error)
    return ""


def damaged(content: bytes, choice: random.Random) -> bytes:
    """The content with up to eight other bytes."""
    changed = bytearray(content)
    for _ in range(choice.randint(1, 8)):
        changed[choice.randrange(len(changed))] = choice.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("where", ["archive", "program"])
def test_damage_never_ends_otherwise(where: str, tmp_path: Path) -> None:
    """Anywhere in the file, and behind an intact archive where no checksum stands in the way."""
    head = FIXTURES / "task_vectors_head.pt"
    with zipfile.ZipFile(head) as file:
        entries = {name.split("/", 1)[1]: file.read(name) for name in file.namelist()}
    storages = {name[5:]: content for name, content in entries.items() if name[:5] == "data/"}
    choice = random.Random(0)
    path = tmp_path / "damaged.pt"
    messages = []
    for _ in range(300):
        if where == "archive":
            path.write_bytes(damaged(head.read_bytes(), choice))
        else:
            archive(path, damaged(entries["data.pkl"], choice), storages)
        messages.append(outcome(path))
    assert all(message.isprintable() for message in messages)
    assert 150 < sum(map(bool, messages)) < 300
