"""Plain float64 NumPy views of a bank, for references that share no code with the methods."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from statsmerging.merging import TaskVectorBank

Array = npt.NDArray[np.float64]


def task_vectors(bank: TaskVectorBank) -> dict[str, Array]:
    """Layer → K × shape."""
    return {
        name: bank.vectors[name].double().numpy().reshape(-1, *start.shape)
        for name, start in bank.pretrained.items()
    }


def flat_task_vectors(bank: TaskVectorBank) -> Array:
    """All layers one after the other: K × P."""
    return np.concatenate([bank.vectors[name].double().numpy() for name in bank.layers], axis=1)


def updates(bank: TaskVectorBank, merged: dict[str, Tensor]) -> dict[str, Array]:
    """Merged weights minus θ₀ of every merged layer."""
    return {
        name: (merged[name].double() - start.double()).numpy()
        for name, start in bank.pretrained.items()
    }


def flat_update(bank: TaskVectorBank, merged: dict[str, Tensor]) -> Array:
    return np.concatenate([update.ravel() for update in updates(bank, merged).values()])


def as_matrix(values: Array) -> Array:
    return values.reshape(values.shape[0], -1)


def ties_reference(vectors: Array, density: float, scale: float) -> Array:
    """TIES-Merging of K × P task vectors, entry by entry."""
    kept = round(density * vectors.shape[1])
    trimmed = vectors.copy()
    for row in trimmed:
        row[np.argsort(np.abs(row))[: len(row) - kept]] = 0
    merged = np.zeros(vectors.shape[1])
    for entry, column in enumerate(trimmed.T):
        agreeing = [x for x in column if x != 0 and np.sign(x) == np.sign(column.sum())]
        merged[entry] = scale * np.mean(agreeing) if agreeing else 0
    return merged


def polar(matrix: Array) -> Array:
    """The nearest matrix with orthonormal rows or columns."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    nearest: Array = left @ right
    return nearest


def tsv_reference(matrices: list[Array]) -> Array:
    """TSV-M of the task matrices of one layer."""
    rank = min(matrices[0].shape) // len(matrices)
    lefts: list[Array] = []
    values: list[float] = []
    rights: list[Array] = []
    for matrix in matrices:
        left, singular, right = np.linalg.svd(matrix, full_matrices=False)
        lefts.append(left[:, :rank])
        values.extend(singular[:rank])
        rights.append(right[:rank])
    return polar(np.hstack(lefts)) @ np.diag(values) @ polar(np.vstack(rights))
