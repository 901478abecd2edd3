"""Singular directions are found once for the same task vectors and settings."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from statsmerging.learning.known_directions import KnownDirections
from statsmerging.merging import Decomposition, SpectralBank, TaskVectorBank, direction_statistics
from statsmerging.store.cache import Cache
from tests.conftest import JobRunner

HASHES = ("pretrained", "expert")
DEFAULT = Decomposition()


def found(
    root: Path, bank: TaskVectorBank, how: Decomposition = DEFAULT, hashes: tuple[str, ...] = HASHES
) -> SpectralBank:
    """The directions as another run finds them."""
    return KnownDirections(Cache(root)).of(bank, how, hashes)


def entries(root: Path) -> set[str]:
    return {path.name for path in root.glob("directions/*.safetensors")}


def parts(bank: SpectralBank) -> dict[str, Tensor]:
    """All that a bank holds of its directions, and their statistics."""
    tensors = {
        f"{name} {part}": getattr(directions, part)
        for name, directions in bank.directions.items()
        for part in ("left", "values", "right")
    }
    return {**tensors, "statistics": direction_statistics(bank).values}


def assert_same_bits(found: SpectralBank, expected: SpectralBank) -> None:
    assert (found.tasks, found.layers) == (expected.tasks, expected.layers)
    assert found.orthonormal == expected.orthonormal
    wanted = parts(expected)
    for name, tensor in parts(found).items():
        assert torch.equal(tensor, wanted[name]), name
        assert tensor.dtype == wanted[name].dtype
    coefficients = torch.linspace(-1, 2, sum(expected.sizes.values()))
    assert_equal(found.merge(coefficients), expected.merge(coefficients))


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "how", [DEFAULT, Decomposition(rank=1, orthonormal=False), Decomposition(dtype=torch.bfloat16)]
)
def test_the_first_and_every_later_call_give_the_bits_of_the_bank(
    tmp_path: Path, bank: TaskVectorBank, how: Decomposition
) -> None:
    expected = SpectralBank.from_bank(bank, how)
    for _ in range(2):
        assert_same_bits(found(tmp_path, bank, how), expected)
    assert len(entries(tmp_path)) == 1


def test_a_second_call_reads(tmp_path: Path, bank: TaskVectorBank) -> None:
    first = parts(found(tmp_path, bank))
    for rows in bank.vectors.values():
        rows.zero_()  # would be found to be nothing
    second = parts(found(tmp_path, bank))
    assert_equal(second, first)


@pytest.mark.parametrize(
    "other", [{"rank": 1}, {"budget": 0.5}, {"orthonormal": False}, {"split_attention": True}]
)
def test_other_settings_have_another_entry(
    tmp_path: Path, bank: TaskVectorBank, other: dict[str, object]
) -> None:
    how = replace(DEFAULT, **other)  # type: ignore[arg-type]
    found(tmp_path, bank)
    assert_same_bits(found(tmp_path, bank, how), SpectralBank.from_bank(bank, how))
    assert len(entries(tmp_path)) == 2


def test_other_weights_and_another_order_have_another_entry(
    tmp_path: Path, bank: TaskVectorBank
) -> None:
    for hashes in (HASHES, HASHES[::-1], (*HASHES, "density 0.2")):
        found(tmp_path, bank, hashes=hashes)
    assert len(entries(tmp_path)) == 3


def test_a_damaged_entry_is_made_anew(
    tmp_path: Path, bank: TaskVectorBank, caplog: pytest.LogCaptureFixture
) -> None:
    expected = SpectralBank.from_bank(bank)
    found(tmp_path, bank)
    (path,) = tmp_path.glob("directions/*.safetensors")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.unlink()  # a mapped file is never written into
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        assert_same_bits(found(tmp_path, bank), expected)
    assert "made anew" in caplog.text
    caplog.clear()
    assert_same_bits(found(tmp_path, bank), expected)
    assert not caplog.text


def test_methods_with_the_same_settings_share_one_bank(
    tmp_path: Path, bank: TaskVectorBank
) -> None:
    known = KnownDirections(Cache(tmp_path))
    first = known.of(bank, DEFAULT, HASHES)
    assert known.of(bank, Decomposition(), list(HASHES)) is first
    assert known.of(bank, Decomposition(rank=1), HASHES) is not first


def test_a_bank_that_nobody_uses_leaves_memory(tmp_path: Path, bank: TaskVectorBank) -> None:
    known = KnownDirections(Cache(tmp_path))
    alive = weakref.ref(known.of(bank, DEFAULT, HASHES))
    gc.collect()
    assert alive() is None


def test_methods_and_runs_find_their_directions_once(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Decomposition] = []
    original = SpectralBank.from_bank

    def counted(bank: TaskVectorBank, decomposition: Decomposition) -> SpectralBank:
        made.append(decomposition)
        return original(bank, decomposition)

    monkeypatch.setattr(SpectralBank, "from_bank", counted)

    def coefficients(name: str, *overrides: str) -> pd.DataFrame:
        two = ["granularity=singular_wise", "method=[stats_merging,free]"]
        run_job(*two, f"cache={tmp_path / 'cache'}", *overrides, directory=tmp_path / name)
        return pd.read_parquet(tmp_path / name / "coefficients.parquet")

    first = coefficients("first")
    assert len(made) == 1
    assert coefficients("second").equals(first)
    third = coefficients("third", "spectral.features=[energy]")
    left_out = ["spectral.features=[energy,depth]", "spectral.leave_out=[depth]"]
    assert coefficients("the same", *left_out).equals(third)
    assert len(made) == 1
    coefficients("fourth", "spectral.rank=2")
    assert [each.rank for each in made] == [None, 2]
