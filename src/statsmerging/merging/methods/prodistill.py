"""ProDistill: block by block, every entry's coefficient is learned from the experts' features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import Method, parameter
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.task_arithmetic import TaskArithmetic

#: (block, task, merged weights so far) → what goes into the block in the merged network, and what
#: comes out of it in the task's expert, on the same images; images are the first dimension.
BlockFeatures = Callable[[str, str, Mapping[str, Tensor]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ProDistill(Method):
    """ProDistill (Xu et al., *Scalable Model Merging with Progressive Layer-wise Distillation*,
    ICML 2025).

    Block after block, θ₀ + Σ_k α_k ∘ T_k with a coefficient for every entry, α. They minimise
    Σ_k Σ_x ‖f(α; h(x)) − f_k(h_k(x))‖² over images x of task k: f_k is the block of the expert, f
    the merged one, h_k(x) what comes out of the blocks of the expert before it, and h(x) what comes
    out of the merged ones. All tensors outside the blocks are merged by task arithmetic.

    One thing differs from the released code, which carries both streams from block to block: here
    the networks run anew for each block, so that what a network does between its blocks is done.

    Args:
        scale: λ of task arithmetic outside the blocks, and all α before training; 0.3 in the
            released code.
        images_per_task: at most so many images, evenly spread over the split; 64 there.
        epochs: passes over the images of all tasks for each block; 100 there.
        learning_rate: of Adam, constant; 0.01 is its default there.
        batch_size: images of all tasks together in a step; 128 there.
        seed: of the order of the images.
    """

    name = "prodistill"
    title = "ProDistill"
    needs = "unlabeled images"

    scale: float = parameter(0.3, at_least=0)
    images_per_task: int = parameter(64, at_least=1)
    epochs: int = parameter(100, at_least=0)
    learning_rate: float = parameter(0.01, above=0)
    batch_size: int = parameter(128, at_least=1)
    seed: int = parameter(0, at_least=0)

    def fit(
        self, backbone: nn.Module, bank: TaskVectorBank, features: BlockFeatures
    ) -> dict[str, Tensor]:
        """State dict of the merged model, in θ₀'s precision, on the bank's device.

        Args:
            backbone: a network whose state dict the bank was built from, in evaluation mode.
            features: called once for each block and task, in the order of the network.

        Raises:
            MergingError: a backbone without blocks.
        """
        merged = TaskArithmetic(self.scale).merge(bank)
        generator = torch.Generator().manual_seed(self.seed)
        for block in merged_blocks(bank, self.title):
            pairs = [features(block, task, merged) for task in bank.tasks]
            inputs, targets = (torch.cat(side) for side in zip(*pairs, strict=True))
            module = backbone.get_submodule(block.removesuffix("."))
            merged |= self._fit_block(module, block, bank, merged, inputs, targets, generator)
        return merged

    def _fit_block(
        self,
        module: nn.Module,
        block: str,
        bank: TaskVectorBank,
        merged: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The merged tensors of one block."""
        fixed = {
            name.removeprefix(block): tensor
            for name, tensor in merged.items()
            if name.startswith(block) and name not in bank.pretrained
        }
        vectors = {name: bank.vectors[name].float() for name in block_layers(bank, block)}
        learned = {
            name: torch.full_like(rows, self.scale, requires_grad=True)
            for name, rows in vectors.items()
        }

        def weights() -> dict[str, Tensor]:
            changes = {name: (learned[name] * rows).sum(dim=0) for name, rows in vectors.items()}
            return {
                name: bank.pretrained[name] + change.view_as(bank.pretrained[name])
                for name, change in changes.items()
            }

        optimizer = torch.optim.Adam(list(learned.values()), lr=self.learning_rate)
        for rows in self._batches(len(inputs), generator):
            rows = rows.to(inputs.device)
            named = {name.removeprefix(block): weight for name, weight in weights().items()}
            found = functional_call(module, {**fixed, **named}, (inputs[rows],))
            optimizer.zero_grad()
            (found - targets[rows]).square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            return {name: weight.to(bank.pretrained[name]) for name, weight in weights().items()}

    def _batches(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Images of every step: passes in an order of their own."""
        for _ in range(self.epochs):
            yield from torch.randperm(count, generator=generator).split(self.batch_size)


def block_layers(bank: TaskVectorBank, block: str) -> list[str]:
    """The merged layers of one block."""
    return [layer for layer in bank.layers if layer.startswith(block)]
