"""What a layer's weights alone do not tell: its relation to the other experts, and its place.

They are not in the paper. The learner may read them together with the paper's statistics.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.statistics import LayerStatistics

RELATION_COLUMNS = ("cosine", "relative_norm", "sign_agreement")

#: Columns that are converted to a higher precision at a time.
CHUNK = 1 << 16


@torch.no_grad()
def relation_statistics(bank: TaskVectorBank) -> LayerStatistics:
    """How each layer's task vector stands to those of the other experts, L × K × 3.

    - ``cosine``: mean cosine of T_k with the other T_j; 0 for a single expert.
    - ``relative_norm``: ‖T_k‖ over the mean norm of all experts.
    - ``sign_agreement``: share of entries whose sign is that of Σ_j T_j, which TIES-Merging elects.
    """
    rows = [_relations(vectors) for _, vectors in bank.layer_vectors()]
    return LayerStatistics(torch.stack(rows).cpu(), RELATION_COLUMNS, bank.layers, bank.tasks)


def place_statistics(layers: tuple[str, ...], tasks: tuple[str, ...]) -> LayerStatistics:
    """Where each layer stands, the same for all experts: L × K × (1 + kinds).

    - ``depth``: from 0, the first tensor of the network, to 1, the last.
    - ``kind_NAME``: 1 for the layers of one kind, 0 for others; the kind is the layer's name
      without its numbers, so that ``blocks.0.mlp.fc1.weight`` is a ``blocks.mlp.fc1.weight``.
    """
    kinds = [layer_kind(layer) for layer in layers]
    names = sorted(set(kinds))
    depths = torch.linspace(0, 1, len(kinds), dtype=torch.float64).unsqueeze(1)
    one_hot = torch.tensor([[kind == name for name in names] for kind in kinds]).double()
    values = torch.cat([depths, one_hot], dim=1)
    return LayerStatistics(
        values.unsqueeze(1).repeat(1, len(tasks), 1),
        ("depth", *(f"kind_{name}" for name in names)),
        layers,
        tasks,
    )


def layer_kind(layer: str) -> str:
    """The layer's name without its numbers."""
    return re.sub(r"\.?\b\d+\b", "", layer).strip(".")


@torch.no_grad()
def task_vector_cosines(bank: TaskVectorBank) -> Tensor:
    """Cosines of the whole task vectors, K × K, float64; 0 where one of them is zero."""
    return _cosines(
        torch.stack([_gram(vectors) for _, vectors in bank.layer_vectors()]).sum(0)
    ).cpu()


def _relations(vectors: Tensor) -> Tensor:
    """Relations of one layer, K × n → K × 3."""
    tasks = len(vectors)
    gram = _gram(vectors)
    cosines = (_cosines(gram).sum(dim=1) - 1) / max(1, tasks - 1)
    norms = gram.diagonal().sqrt()
    relative = norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)
    moved = norms > 0
    return torch.stack([cosines * moved, relative, _sign_agreement(vectors)], dim=1)


def _gram(vectors: Tensor) -> Tensor:
    """⟨T_j, T_k⟩ of one layer, K × K, float64."""
    gram = vectors.new_zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, vectors.shape[1], CHUNK):
        part = vectors[:, start : start + CHUNK].double()
        gram += part @ part.T
    return gram


def _cosines(gram: Tensor) -> Tensor:
    norms = gram.diagonal().sqrt()
    products = norms.unsqueeze(1) * norms
    return torch.where(products > 0, gram / products.clamp_min(1e-300), 0.0)


def _sign_agreement(vectors: Tensor) -> Tensor:
    agreeing = vectors.new_zeros(len(vectors), dtype=torch.float64)
    for start in range(0, vectors.shape[1], CHUNK):
        part = vectors[:, start : start + CHUNK].float()
        agreeing += (part.sign() == part.sum(dim=0).sign()).sum(dim=1)
    return agreeing / vectors.shape[1]
