"""A bundle that was damaged or made to do harm is refused in one line, and writes nothing."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from statsmerging.report.bundles import reported_runs
from statsmerging.runs import bundles
from statsmerging.runs.bundles import opened_bundle
from statsmerging.store.received import ReceivedError
from tests.sent_runs import contents, finished, repacked, sent

Damage = Callable[[Path], object]

RESULTS = "a/results.json"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of one run beside a run directory; all temporary folders are in one folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    finished(tmp_path / "sender" / "a", {"ties": 0.5})
    finished(tmp_path / "runs" / "mine", {"ties": 0.5}, seed=1)
    return sent(tmp_path / "sender", tmp_path / "runs" / "theirs.zip")


def changed(name: str, old: bytes, new: bytes, *, listed: bool = False) -> Damage:
    def damage(path: Path) -> None:
        content = contents(path)[name]
        assert old in content
        repacked(path, {name: content.replace(old, new)}, listed=listed)

    return damage


def with_file(name: str, content: bytes | None = b"{}", *, listed: bool = False) -> Damage:
    return lambda path: repacked(path, {name: content}, listed=listed)


def with_entry(name: str, mode: int = 0, kind: int = zipfile.ZIP_STORED) -> Damage:
    """A file of this kind in place of the one of this name."""

    def damage(path: Path) -> None:
        content = contents(path).get(name, b"/etc/passwd")
        repacked(path, {name: None})
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = kind
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(entry, content)

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_inside(path: Path) -> None:
    """Some bytes of a file are gone; the list at the end of the ZIP is whole."""
    raw = path.read_bytes()
    where = raw.index(b"a/manifest.json") + 200
    path.write_bytes(raw[:where] + raw[where + 50 :])


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(RESULTS, "{}")


def encrypted(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def without_runs(path: Path) -> None:
    names = [name for name in contents(path) if name.startswith("a/")]
    repacked(path, dict.fromkeys(names), listed=True)


DAMAGES: dict[str, tuple[str, Damage]] = {
    "cut short": ("it is no whole ZIP", cut),
    "cut inside": ("it is no whole ZIP", cut_inside),
    "no ZIP": ("it is no whole ZIP", lambda path: path.write_bytes(b"PK")),
    "empty": ("it is no whole ZIP", lambda path: path.write_bytes(b"")),
    "no list": ("it is no bundle: it has no bundle.json", with_file("bundle.json", None)),
    "a list that is no JSON": ("no whole JSON", with_file("bundle.json", b"{")),
    "a list of another kind": ("format 'None' is not read", with_file("bundle.json", b"[]")),
    "a deep list": (
        "nested too deeply",
        with_file("bundle.json", b'{"a":' * 99 + b"1" + b"}" * 99),
    ),
    "of a later format": (
        "format '2' is not read here, only format 1",
        changed("bundle.json", b'"format": 1', b'"format": 2'),
    ),
    "by a long name": (
        "bundle.json is no record: by: String should have at most 200 characters",
        changed("bundle.json", b'"by": null', b'"by": "' + b"x" * 201 + b'"'),
    ),
    "other results": (
        "'a/results.json' is not what was packed: its sha256 is another",
        changed(RESULTS, b'"seed": 0', b'"seed": 3'),
    ),
    "other results, listed": (
        "theirs.zip/a/results.json is not what the run wrote",
        changed(RESULTS, b'"seed": 0', b'"seed": 3', listed=True),
    ),
    "another config, listed": (
        "theirs.zip/a/config.yaml was changed since",
        changed("a/config.yaml", b"seed: 0", b"seed: 3", listed=True),
    ),
    "other outcomes": (
        "'a/outcomes.safetensors' is not what was packed",
        changed("a/outcomes.safetensors", b"ties", b"free"),
    ),
    "another manifest, listed": (
        "theirs.zip/a/manifest.json is not what the run wrote",
        changed("a/manifest.json", b"abc123", b"abc124", listed=True),
    ),
    "without outcomes": (
        "'a/outcomes.safetensors' is not in both, list and bundle",
        with_file("a/outcomes.safetensors", None),
    ),
    "without outcomes, listed": (
        "theirs.zip/a/outcomes.safetensors: No such file",
        with_file("a/outcomes.safetensors", None, listed=True),
    ),
    "without manifest, listed": (
        "theirs.zip/a is no finished run: it has no manifest.json",
        with_file("a/manifest.json", None, listed=True),
    ),
    "a further file": ("'a/notes.txt' is not in both", with_file("a/notes.txt")),
    "a further file, listed": (
        "'a/notes.txt' is no file of a bundle",
        with_file("a/notes.txt", listed=True),
    ),
    "weights, listed": (
        "'a/merged.safetensors' is no file of a bundle",
        with_file("a/merged.safetensors", listed=True),
    ),
    "upwards": (
        "'../../b/results.json' is no file of a bundle",
        with_file("../../b/results.json", listed=True),
    ),
    "upwards in a curve": (
        "is no file of a bundle",
        with_file("a/learning_curves/../version_0/metrics.csv", listed=True),
    ),
    "from the root": (
        "'/b/results.json' is no file of a bundle",
        with_file("/b/results.json", listed=True),
    ),
    "on a drive": (
        r"'C:\\b/results.json' is no file of a bundle",
        with_file("C:\\b/results.json", listed=True),
    ),
    "a hidden folder": ("is no file of a bundle", with_file(".ssh/results.json", listed=True)),
    "a long name": ("is no file of a bundle", with_file("x" * 256 + "/results.json", listed=True)),
    "a line break": ("is no file of a bundle", with_file("b\nc/results.json", listed=True)),
    "a link": (
        "'a/outcomes.safetensors' is no regular file",
        with_entry("a/outcomes.safetensors", stat.S_IFLNK | 0o777),
    ),
    "a pipe": ("'a/results.json' is no regular file", with_entry(RESULTS, stat.S_IFIFO | 0o666)),
    "a folder": ("'b/' is no regular file", with_file("b/", b"", listed=True)),
    "packed otherwise": (
        "'a/results.json' is packed in a way that is not read",
        with_entry(RESULTS, kind=zipfile.ZIP_LZMA),
    ),
    "a name twice": ("'a/results.json' is there twice", twice),
    "encrypted": ("is encrypted", encrypted),
    "no run": ("it holds no run", without_runs),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_bundle_is_named_and_left_out(
    theirs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    expected, damage = DAMAGES[name]
    damage(theirs)
    before = set(tmp_path.rglob("*"))
    (run,) = reported_runs(theirs.parent)
    assert run.path == theirs.parent / "mine"
    (line,) = caplog.messages
    assert line.startswith(f"left out: {theirs}")
    assert expected in line
    assert "\n" not in line
    assert "temporary" not in line
    assert set(tmp_path.rglob("*")) == before
    assert reported_runs(theirs) == []


def test_a_link_to_a_bundle_is_not_followed(
    theirs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs.rename(tmp_path / "elsewhere")
    theirs.symlink_to(tmp_path / "elsewhere")
    assert len(reported_runs(theirs.parent)) == 1
    assert caplog.messages == [f"left out: {theirs} is a link; links are not followed"]


def test_no_more_is_unpacked_than_the_entry_tells(theirs: Path) -> None:
    """List and entry tell ten bytes, and a megabyte is packed."""
    repacked(theirs, {"b/results.json": bytes(10)}, listed=True)
    told = contents(theirs)
    with zipfile.ZipFile(theirs, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (told | {"b/results.json": bytes(1 << 20)}).items():
            archive.writestr(name, content)
    raw = bytearray(theirs.read_bytes())
    for header, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = raw.rindex(header) + size  # of the last file
        assert struct.unpack_from("<I", raw, where) == (1 << 20,)
        struct.pack_into("<I", raw, where, 10)
    theirs.write_bytes(raw)
    refuses(theirs, "theirs.zip: it is no whole ZIP: Bad CRC-32 for file 'b/results.json'")


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [
        ("MOST_FILES", 4, "files are more than 4"),
        ("LARGEST_FILE", 1000, "has more than 1000 bytes"),
        ("LARGEST_BUNDLE", 2000, "its files have more than 2000 bytes together"),
        ("LARGEST_TEXT", 100, "bundle.json is too large"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    theirs: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, expected: str
) -> None:
    monkeypatch.setattr(bundles, limit, value)

    def unpack(*_: object) -> None:
        raise AssertionError("nothing may be unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    refuses(theirs, expected)


def test_what_nobody_could_read_is_not_written(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "LARGEST_BUNDLE", 2000)
    with pytest.raises(ReceivedError, match=r"again.zip: its files have more than 2000 bytes"):
        sent(tmp_path / "sender", tmp_path / "again.zip")
    assert not (tmp_path / "again.zip").exists()


def refuses(path: Path, expected: str) -> None:
    with pytest.raises(ReceivedError, match=expected), opened_bundle(path, path.name):
        pass
