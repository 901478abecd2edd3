"""Hostile pickles: nothing of them runs, nothing large is allocated, the answer is one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.zoo.formats.hostile import Call, archive, program, refusal


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


@pytest.mark.parametrize("method", ["__setstate__", "__new__"])
def test_an_allowed_name_is_not_looked_up(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module `src.modeling` that lies in the way is not even imported."""
    marker = tmp_path / "ran"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").touch()
    (tmp_path / "src" / "modeling.py").write_text(
        f"class ImageEncoder:\n    def {method}(self, *_):\n        {_write(marker)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    hostile = b"\x80\x02csrc.modeling\nImageEncoder\n)\x81X\x01\x00\x00\x00xb."
    message = refusal(archive(tmp_path / "model.pt", hostile))
    assert "the state of 'src.modeling.ImageEncoder' is no mapping of names" in message
    assert not marker.exists()
    assert "src.modeling" not in sys.modules

    # The payload is live. What `__new__` gave has no state to set, which ends in an error later.
    with contextlib.suppress(pickle.UnpicklingError):
        pickle.loads(hostile)
    assert marker.exists()
    for name in ("src.modeling", "src"):
        del sys.modules[name]


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
    deep = module({})
    for _ in range(3):
        deep = module({"long" * 200: deep})
    path = archive(tmp_path / "model.pt", program(deep))
    assert "has a name of more than 1000 letters" in refusal(path)
    path = archive(tmp_path / "model.pt", program(module({"long" * 300: module({})})))
    assert "is no mapping of names" in refusal(path)
