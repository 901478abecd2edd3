"""Singular directions are found once: kept in the cache, and shared while methods use them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from safetensors.torch import load_file, save_file

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.decomposition import DIRECTION_COLUMNS, Decomposition, Directions
from statsmerging.merging.spectral import SpectralBank
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of

#: The tensors of ``Directions``, as they are called in a file after the layer's name.
_PARTS = ("left", "values", "right", "statistics")


class KnownDirections:
    """The spectral banks of a run; the same task vectors and settings give the same bank.

    A bank lives as long as a method holds it. After that, and in other runs, it is read from the
    cache: the file is mapped into memory, so that only what a step uses is there.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._alive: WeakValueDictionary[str, SpectralBank] = WeakValueDictionary()

    def of(
        self, bank: TaskVectorBank, decomposition: Decomposition, hashes: Iterable[str]
    ) -> SpectralBank:
        """The directions of the task vectors of a bank, on its device.

        Args:
            hashes: what the task vectors depend on: weights, in their order, and what was done to
                their differences.
        """
        # What is rounding depends on the types of all experts, also where these are some of them.
        layers = [f"{name} {bank.rounding[name]}" for name in bank.layers]
        key = key_of([*hashes, str(decomposition), *DIRECTION_COLUMNS, *layers])
        directions = self._alive.get(key)
        if directions is None:
            directions = SpectralBank(
                bank.tasks,
                bank.pretrained,
                bank.kept,
                self._cache.load(
                    "directions",
                    f"{key}.safetensors",
                    write=lambda path: _write(path, SpectralBank.from_bank(bank, decomposition)),
                    read=lambda path: _read(path, bank.layers, bank.device),
                ),
                orthonormal=decomposition.orthonormal,
            )
            self._alive[key] = directions
        return directions


def _write(path: Path, bank: SpectralBank) -> None:
    tensors = {
        f"{name}/{part}": getattr(directions, part).cpu().contiguous()
        for name, directions in bank.directions.items()
        for part in _PARTS
    }
    save_file(tensors, path)


def _read(path: Path, layers: Iterable[str], device: torch.device) -> dict[str, Directions]:
    tensors = load_file(path)
    return {
        name: Directions(*(tensors[f"{name}/{part}"] for part in _PARTS)).moved(
            lambda part: part.to(device)
        )
        for name in layers
    }
