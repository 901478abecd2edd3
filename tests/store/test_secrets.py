"""Passwords and tokens stand in no record."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from statsmerging.runs.directory import RunDirectory, run_hash
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.journal import Entry, Journal
from statsmerging.runs.manifest import manifest
from statsmerging.store.files import read_json
from statsmerging.store.secrets import RedactingFormatter, redacted
from tests.runs.test_finished_run import RESULTS

URI = "postgresql://me:p@ss/w0rd@db.example/runs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URI, "postgresql://***@db.example/runs"),
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("https://ghp_token@host.example/x.git", "https://***@host.example/x.git"),
        ("see 'https://a:b@c/' and d@e", "see 'https://***@c/' and d@e"),
        ("s3://bucket/x?X-Amz-Signature=abc&n=1", "s3://bucket/x?X-Amz-Signature=***&n=1"),
        ("access_token=abc", "access_token=***"),
        (f"hf_{'a' * 34} is it", "*** is it"),
        (f"ghp_{'A1' * 18}", "***"),
    ],
)
def test_what_looks_like_a_credential_is_replaced(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected
    assert redacted({"a": [text, 1, None]}) == {"a": [expected, 1, None]}


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///outputs/mlflow.db",
        "http://127.0.0.1:5000/a@b",
        "hf://datasets/owner/name@main",
        "file:///home/me@work/x",
        "hf_clip_vit_base_patch32_finetuned_on_mnist.safetensors",
        "owner/name@0123456789abcdef",
        "zoo.finetuning.steps=3",
        "class_tokens=2",
        "design=3",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redacted(text) == text


def test_records_of_a_run_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {
        "seed": 0,
        "zoo": {"seed": 0, "base": URI},
        "merge": {"running_statistics": "averaged"},
        "logger": {"mlflow": {"tracking_uri": URI}},
    }
    monkeypatch.setattr(sys, "argv", ["run.py", f"logger.mlflow.tracking_uri={URI}"])
    directory = RunDirectory(tmp_path / "run", config)
    record = manifest(
        config,
        run_hash=directory.run_hash,
        weights={},
        files={},
        plugins={},
        data={},
        preprocessing={},
        inputs={},
        stamps=[],
    )
    with directory.exclusive():
        directory.note_error(f"cannot reach {URI}")
        directory.finish(RESULTS, record)
    journal = Journal(tmp_path / "journal")
    journal.plan([[f"logger.mlflow.tracking_uri={URI}"]])
    journal.write(Entry(0, (f"logger.mlflow.tracking_uri={URI}",), "run", "failed", URI))
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != ".lock":
            assert "w0rd" not in file.read_text(), file
    # The hash is that of what stands there, so the record is whole, and the same run is found.
    assert read_finished_run(directory.path).config == redacted(config)
    assert run_hash(redacted(config)) == run_hash(config)
    assert read_json(directory.manifest)["command"][1].endswith("://***@db.example/runs")


def test_log_lines_hold_none() -> None:
    formatter = RedactingFormatter("%(name)s: %(message)s")
    try:
        raise ValueError(URI)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("run", logging.ERROR, "", 0, "no store at %s", (URI,), error)
    line = formatter.format(record)
    assert line.startswith("run: no store at postgresql://***@db.example/runs\nTraceback")
    assert "w0rd" not in line.replace("raise ValueError(URI)", "")
