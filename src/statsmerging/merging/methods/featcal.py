"""FeatCal: the blocks of a merged network, calibrated in their order to the experts' features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import Method, parameter
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.task_arithmetic import TaskArithmetic
from statsmerging.merging.state_dicts import matrix_shape


@dataclass(frozen=True)
class Moments:
    """What a layer sees in the merged network, x, and in an expert, y: means over its inputs.

    Attributes:
        merged: E x, n.
        expert: E y, n.
        second: E x xᵀ, n × n; of a normalisation, where x is what the scale multiplies, E x ∘ x, n.
        cross: E x yᵀ, n × n; of a normalisation E x ∘ y, n.
    """

    merged: Tensor
    expert: Tensor
    second: Tensor
    cross: Tensor


#: (block, task, merged weights so far) → weight of a layer in the block → moments of its inputs.
BlockMoments = Callable[[str, str, Mapping[str, Tensor]], Mapping[str, Moments]]


@dataclass(frozen=True)
class FeatCal(Method):
    """FeatCal (Gu et al., *FeatCal: Feature Calibration for Post-Merging Models*, 2026), on task
    arithmetic, as its released code computes it.

    Block after block, with x_k what a layer of the merged network sees on images of task k behind
    the calibrated blocks, y_k what it sees in expert k, and x̃_k = α y_k + (1 − α) x_k:

    - matrices minimise Σ_k E‖W x_k − W_k x̃_k‖² / ‖E x_k x_kᵀ‖ + μ ‖W − A(W)‖²;
    - their biases minimise Σ_k ‖b + E W x_k − b_k − E W_k x̃_k‖² / ‖E x_k x_kᵀ‖ + μ ‖b − A(b)‖²;
    - scale and shift of a normalisation, whose normalised input is x_k, together minimise
      Σ_k E‖w ∘ x_k + b − w_k ∘ x_k − b_k‖² + μ ‖w − A(w)‖² + μ ‖b − A(b)‖².

    A = θ₀ + ρ (θ − θ₀) extrapolates the merged tensor θ. All layers of a block are calibrated on
    features from before the block was; what is outside the blocks, or has no moments, stays merged.
    In the last block of a network that is pooled by its class token, other tokens weigh less, but
    not in what keys and values are made from. A matrix that is made of queries, keys and values,
    which the released code's network has apart, counts among the latter.

    Args:
        scale: λ of task arithmetic; 0.3 in the paper.
        ridge: μ; 0.05 in the released code.
        anchor: ρ; 2 in the paper (2.2 in the released code's example).
        blend: α; 0.3 in the paper (0.25 in the released code's example).
        other_tokens: weight of tokens other than the class token; 0.01 in the released code.
        images_per_task: at most so many images, evenly spread over the split; 256 in the paper.
    """

    name = "featcal"
    title = "FeatCal"
    needs = "activations"

    scale: float = parameter(0.3, at_least=0)
    ridge: float = parameter(0.05, above=0)
    anchor: float = parameter(2.0, at_least=0)
    blend: float = parameter(0.3, at_least=0, at_most=1)
    other_tokens: float = parameter(0.01, at_least=0, at_most=1)
    images_per_task: int = parameter(256, at_least=1)

    @torch.no_grad()
    def merge(self, bank: TaskVectorBank, block_moments: BlockMoments) -> dict[str, Tensor]:
        """State dict of the calibrated model, in θ₀'s precision, on the bank's device.

        Args:
            bank: task vectors of the experts to merge.
            block_moments: called once for each block and task, in the order of the network.

        Raises:
            MergingError: a backbone without blocks.
        """
        merged = TaskArithmetic(self.scale).merge(bank)
        for block in merged_blocks(bank, self.title):
            found = [block_moments(block, task, merged) for task in bank.tasks]
            calibrated: dict[str, Tensor] = {}
            for weight in found[0]:
                moments = [self._blended(of_task[weight], bank.device) for of_task in found]
                calibrated |= self._layer(bank, merged, weight, moments)
            merged |= {name: x.to(bank.pretrained[name]) for name, x in calibrated.items()}
        return merged

    def _blended(self, moments: Moments, device: torch.device) -> Moments:
        """Moments with x̃ in place of y, float64."""
        merged, expert = moments.merged.to(device).double(), moments.expert.to(device).double()
        second, cross = moments.second.to(device).double(), moments.cross.to(device).double()
        return Moments(
            merged,
            torch.lerp(merged, expert, self.blend),
            second,
            torch.lerp(second, cross, self.blend),
        )

    def _layer(
        self,
        bank: TaskVectorBank,
        merged: Mapping[str, Tensor],
        weight: str,
        moments: Sequence[Moments],
    ) -> dict[str, Tensor]:
        """The tensors of one layer that are calibrated, float64."""
        bias = f"{weight.removesuffix('weight')}bias"
        changed = [name for name in (weight, bias) if name in bank.pretrained]
        anchors = {
            name: torch.lerp(bank.pretrained[name].double(), merged[name].double(), self.anchor)
            for name in changed
        }
        experts = {name: expert_tensors(bank, name) for name in (weight, bias) if name in merged}
        if merged[weight].dim() == 1:
            if len(changed) < 2:
                return {}  # the closed form is of both together
            pair = calibrated_affine(
                experts[weight], experts[bias], moments, anchors[weight], anchors[bias], self.ridge
            )
            return dict(zip((weight, bias), pair, strict=True))
        matrix, matrices = merged[weight].double(), experts[weight]
        rows = matrices.view(len(matrices), *matrix_shape(matrix))
        if weight in changed:
            flat = anchors[weight].view(rows.shape[1:])
            matrix = calibrated_matrix(rows, moments, flat, self.ridge).view_as(matrix)
        found = {weight: matrix} if weight in changed else {}
        if bias in changed:
            flat = matrix.view(rows.shape[1:])
            found[bias] = calibrated_bias(
                experts[bias], rows, moments, flat, anchors[bias], self.ridge
            )
        return found


def expert_tensors(bank: TaskVectorBank, name: str) -> Tensor:
    """A tensor of all experts, K × its shape, float64; that of θ₀ if none changed it."""
    if name not in bank.pretrained:
        return bank.kept[name].double().expand(len(bank.tasks), *bank.kept[name].shape)
    start = bank.pretrained[name].double()
    return start + bank.vectors[name].double().view(-1, *start.shape)


def calibrated_matrix(
    matrices: Tensor, moments: Sequence[Moments], anchor: Tensor, ridge: float
) -> Tensor:
    """Experts' matrices K × m × n and an anchor m × n → the calibrated matrix, m × n."""
    total = ridge * torch.eye(anchor.shape[1]).to(anchor)
    products = ridge * anchor
    for matrix, seen in zip(matrices, moments, strict=True):
        size = input_size(seen)
        total = total + seen.second / size
        products = products + matrix @ seen.cross.mT / size
    found: Tensor = torch.linalg.solve(total, products, left=False)
    return found


def calibrated_bias(
    biases: Tensor,
    matrices: Tensor,
    moments: Sequence[Moments],
    matrix: Tensor,
    anchor: Tensor,
    ridge: float,
) -> Tensor:
    """Experts' biases K × m and matrices K × m × n, the calibrated matrix m × n → bias, m."""
    total, found = ridge, ridge * anchor
    for bias, own, seen in zip(biases, matrices, moments, strict=True):
        share = 1 / float(input_size(seen))
        total += share
        found = found + share * (bias + own @ seen.expert - matrix @ seen.merged)
    return found / total


def calibrated_affine(
    scales: Tensor,
    shifts: Tensor,
    moments: Sequence[Moments],
    scale_anchor: Tensor,
    shift_anchor: Tensor,
    ridge: float,
) -> tuple[Tensor, Tensor]:
    """Experts' scales and shifts, K × n each → those of the calibrated normalisation, n each."""
    means = torch.stack([seen.merged for seen in moments])
    squares = torch.stack([seen.second for seen in moments])
    # Two equations for each entry: squares · w + means · b = first, means · w + count · b = second.
    first = (squares * scales + means * shifts).sum(dim=0) + ridge * scale_anchor
    second = (means * scales + shifts).sum(dim=0) + ridge * shift_anchor
    mean, square, count = means.sum(dim=0), squares.sum(dim=0) + ridge, len(means) + ridge
    determinant = square * count - mean.square()
    scale = (count * first - mean * second) / determinant
    return scale, (square * second - mean * first) / determinant


def input_size(seen: Moments) -> Tensor:
    """‖E x xᵀ‖, Frobenius; 1 for a layer whose inputs are all 0."""
    size = torch.linalg.matrix_norm(seen.second)
    return torch.where(size > 0, size, 1.0)
