"""Hostile files: nothing of them runs, nothing large is allocated, the answer is one line."""

from __future__ import annotations

import importlib
import os
import pickle
import random
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from statsmerging.records.errors import UserError
from statsmerging.zoo.formats.pickled import read_pickled
from tests.zoo.formats.genuine import FIXTURES
from tests.zoo.formats.hostile import Call, Storage, archive, program, tensor

ENCODER = FIXTURES / "task_vectors_encoder.pt"


def refusal(path: Path) -> str:
    """The one line with which the file is refused, after a moment and without much memory."""
    tracemalloc.start()
    started = time.perf_counter()
    try:
        with pytest.raises(UserError) as refused:
            read_pickled(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
    assert peak < 64 << 20
    assert time.perf_counter() - started < 20
    return message


def _write(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


PAYLOADS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os.system": (lambda marker: Call(os.system, f"touch {marker}"), "'posix.system'"),
    "eval": (lambda marker: Call(eval, _write(marker)), "'__builtin__.eval'"),
    "exec": (lambda marker: Call(exec, _write(marker)), "'__builtin__.exec'"),
    "Popen": (
        lambda marker: Call(subprocess.Popen, ["touch", str(marker)]),
        # Protocol 2 writes the names Python 2 had.
        "'commands.Popen'",
    ),
    "nested": (
        lambda marker: Call(OrderedDict, [("weight", Call(os.system, f"touch {marker}"))]),
        "'posix.system'",
    ),
    "in a state": (
        lambda marker: Call(OrderedDict, state={"x": Call(eval, _write(marker))}),
        "'__builtin__.eval'",
    ),
    "getattr chain": (
        lambda marker: Call(
            Call(getattr, Call(importlib.import_module, "os"), "system"), f"touch {marker}"
        ),
        "'__builtin__.getattr'",
    ),
    "import_module": (
        lambda marker: Call(importlib.import_module, "hostile_module"),
        "'importlib.import_module'",
    ),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_calls_are_named_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = PAYLOADS[name]
    marker = tmp_path / "ran"
    (tmp_path / "hostile_module.py").write_text(_write(marker))
    monkeypatch.syspath_prepend(tmp_path)
    hostile = program(make(marker))
    assert f"its pickle names {expected}" in refusal(archive(tmp_path / "model.pt", hostile))
    assert not marker.exists()
    assert "hostile_module" not in sys.modules

    # The proof that the payload is live: Python's own unpickler runs it.
    result = pickle.loads(hostile)
    if isinstance(result, subprocess.Popen):
        result.wait()
    assert marker.exists()
    sys.modules.pop("hostile_module", None)


@pytest.mark.parametrize("method", ["__setstate__", "__new__", "__reduce__"])
def test_an_allowed_name_is_not_looked_up(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module `src.modeling` that lies in the way is not even imported."""
    marker = tmp_path / "ran"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "modeling.py").write_text(
        f"class ImageEncoder:\n    def {method}(self, *_):\n        {_write(marker)}\n"
        f"{_write(tmp_path / 'imported')}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = b"\x80\x02csrc.modeling\nImageEncoder\n)\x81X\x01\x00\x00\x00xb."
    assert "the state of 'src.modeling.ImageEncoder' is no mapping of names" in refusal(
        archive(tmp_path / "model.pt", made)
    )
    assert not marker.exists()
    assert not (tmp_path / "imported").exists()


def test_a_class_that_does_not_exist(tmp_path: Path) -> None:
    made = b"\x80\x02csrc.modeling\nAbsent\n)R."
    assert "the state of 'src.modeling.Absent' is no mapping" in refusal(
        archive(tmp_path / "model.pt", made)
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pickle.dumps({"a": os.system}, protocol=4), "has FRAME, which torch.save never writes"),
        (pickle.dumps({"a": 1}, protocol=0), "which torch.save never writes"),
        (b"\x80\x02(ios\nsystem\n.", "has INST, which torch.save never writes"),
        (b"\x80\x02}(X\x01\x00\x00\x00a", "its pickle is broken"),
        (b"\x80\x02R.", "its pickle is broken"),
        (b"\x80\x02u.", "its pickle is broken"),
        (b"\x80\x02}}.", "its pickle is broken"),
        (b"\x80\x02h\x07.", "its pickle is broken"),
        (b"\x80\x02" + b"\x8b\xff\xff\xff\x7f" + b".", "its pickle is broken"),
        (b"\x80\x02X\x01\x00\x00\x00x)R.", "calls what is no class or function"),
        (b"\x80\x02]}b.", "sets the state of what is no object"),
        (b"\x80\x02}Na.", "appends to what is no list"),
        (b"\x80\x02]NNs.", "puts items into what is no mapping"),
        (b"\x80\x02})Ns.", "keys that are no names"),
        (b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.", "keys that are no names"),
        (b"\x80\x02K\x01.", "its content is no mapping of names"),
        (b"\x80\x02}r\xff\xff\xff\xffK\x01K\x01s.", "its content is no mapping of names"),
        (b"\x80\x02" + b"}" * 5_000_000, "data.pkl has 5000002 bytes, over 2097152"),
        (b"\x80\x02cos\n" + b"\x1b[2J" * 1000 + b"\n.", "its pickle names 'os."),
        (b"\x80\x02csrc.modeling\n\xff\n.", "its pickle is broken"),
    ],
)
def test_broken_programs(made: bytes, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(archive(tmp_path / "model.pt", made))


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
    assert "its tensors together are larger than the file" in refusal(path)


def module(children: dict[str, Any]) -> Call:
    """Pickled as a module that holds others."""
    state = {"_modules": children, "_parameters": {}, "_buffers": {}}
    return Call(torch.nn.Module, state=state)


def test_modules_without_end(tmp_path: Path) -> None:
    doubling = module({})
    for _ in range(60):
        doubling = module({"a": doubling, "b": doubling})
    children: dict[str, Any] = {}
    cyclic = module(children)
    children["itself"] = cyclic
    for endless in (doubling, cyclic):
        path = archive(tmp_path / "model.pt", program(endless))
        assert "stands in it twice" in refusal(path)


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
