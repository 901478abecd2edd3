"""How merges are usually written: what ours is compared with."""

from __future__ import annotations

from torch import Tensor

from statsmerging.merging import MergedModel, TaskVectorBank


def python_sum(bank: TaskVectorBank, coefficients: Tensor) -> dict[str, Tensor]:
    """θ₀ + Σ_k λ_k T_k as Python's sums: one autograd node per layer and task."""
    weights: dict[str, Tensor] = {}
    rows = bank.split(coefficients)
    for row, (name, start) in zip(rows, bank.pretrained.items(), strict=True):
        total = start
        for k in range(len(bank.tasks)):
            total = total + row[k] * bank.vectors[name][k].view_as(start)
        weights[name] = total
    return weights


class PythonSum(MergedModel):
    """A student that merges by Python's sums."""

    bank: TaskVectorBank

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        return python_sum(self.bank, coefficients)


class TrainableExperts(PythonSum):
    """The same where every task vector asks for a gradient, as in the published code."""

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        for vectors in self.bank.vectors.values():
            vectors.requires_grad_()
            vectors.grad = None
        return python_sum(self.bank, coefficients)
