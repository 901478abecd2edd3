"""RegMean++: RegMean block by block, each on the features of the merged blocks before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import Method, parameter
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.regmean import RegMean
from statsmerging.merging.methods.simple_average import SimpleAverage

#: (block, task, merged weights so far) → layer of the block → Gram matrix of its inputs, in a
#: network whose block is that of the task's expert and whose blocks before it are merged.
BlockGrams = Callable[[str, str, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class RegMeanPlusPlus(Method):
    """RegMean++ (Nguyen et al., *RegMean++: Enhancing Effectiveness and Generalization of
    Regression Mean for Model Merging*, 2025).

    In RegMean the layers of an expert see the features of that expert. Here the block of an expert
    sees the features of the merged blocks before it. Tensors outside the blocks are averaged.
    Every block takes a forward pass of its own; only one block's Gram matrices exist at a time.

    Args:
        off_diagonal: α on the off-diagonal entries of the Gram matrices, as in RegMean.
        images_per_task: at most so many images, evenly spread over the split.
    """

    name = "regmean_plus_plus"
    title = "RegMean++"
    needs = "activations"

    off_diagonal: float = parameter(0.9, at_least=0, at_most=1)
    images_per_task: int = parameter(256, at_least=1)

    def merge(self, bank: TaskVectorBank, block_grams: BlockGrams) -> dict[str, Tensor]:
        """State dict of the merged model.

        Args:
            bank: task vectors of the experts to merge.
            block_grams: called once for each block and task, in the order of the network.

        Raises:
            MergingError: a backbone without blocks.
        """
        regmean = RegMean(off_diagonal=self.off_diagonal)
        merged = SimpleAverage().merge(bank)
        for block in merged_blocks(bank, self.title):
            grams = {task: block_grams(block, task, merged) for task in bank.tasks}
            layers = [layer for layer in bank.layers if layer.startswith(block)]
            part = TaskVectorBank(
                bank.tasks,
                {layer: bank.pretrained[layer] for layer in layers},
                {layer: bank.vectors[layer] for layer in layers},
                {},
            )
            merged |= regmean.merge(part, grams)
        return merged
