"""RegMean++: RegMean block by block, each on what the merged blocks before it give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.data.images import ImageSplit
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods import Method, parameter, simple_average
from statsmerging.merging.methods.regmean import RegMean
from statsmerging.scoring.evidence import input_grams
from statsmerging.zoo.experts import Zoo

#: Blocks of timm's transformers, of open_clip's towers and of residual networks.
_BLOCK = re.compile(r"(blocks|transformer\.resblocks|layer\d+)\.\d+\.")


@dataclass(frozen=True)
class RegMeanPlusPlus(Method):
    """RegMean++ (Nguyen et al., *RegMean++: Enhancing Effectiveness and Generalization of
    Regression Mean for Model Merging*, 2025).

    In RegMean an expert's layers see the features of that expert. Here the layers of a block see
    what the block of the expert makes of the features of the blocks that are merged already.
    Tensors outside the blocks are averaged. Every block takes a forward pass of its own; only
    one block's Gram matrices exist at a time.

    Args:
        off_diagonal: α on the off-diagonal entries of the Gram matrices, as in RegMean.
        images_per_task: at most so many images, evenly spread over the split.
    """

    name = "regmean_plus_plus"
    title = "RegMean++"
    needs = "activations"

    off_diagonal: float = parameter(0.9, at_least=0, at_most=1)
    images_per_task: int = parameter(256, at_least=1)

    def merge(
        self, zoo: Zoo, bank: TaskVectorBank, images: Mapping[str, ImageSplit]
    ) -> dict[str, Tensor]:
        """State dict of the merged model.

        Args:
            bank: task vectors of the experts to merge.
            images: task name → unlabeled images, for all tasks of the bank; labels are not read.

        Raises:
            MergingError: a backbone without blocks.
        """
        samples = {task: images[task].sample(self.images_per_task) for task in bank.tasks}
        regmean = RegMean(off_diagonal=self.off_diagonal)
        merged = simple_average(bank)
        for block in blocks(bank):
            grams = {}
            for task, split in samples.items():
                expert = zoo.experts[task].state
                own = {name: expert[name] for name in expert if name.startswith(block)}
                grams[task] = input_grams(
                    zoo, {**merged, **own}, split, f"inputs of {block} on {task}", within=block
                )
            merged |= regmean.merge(_part(bank, block), grams)
        return merged


def blocks(bank: TaskVectorBank) -> list[str]:
    """Prefixes of the merged layers' names, one for each block, in the order of the network."""
    found = {match.group(): None for layer in bank.layers if (match := _BLOCK.match(layer))}
    if not found:
        raise MergingError("RegMean++ merges block by block, and the backbone has no known blocks")
    return list(found)


def _part(bank: TaskVectorBank, prefix: str) -> TaskVectorBank:
    layers = [layer for layer in bank.layers if layer.startswith(prefix)]
    return TaskVectorBank(
        bank.tasks,
        {layer: bank.pretrained[layer] for layer in layers},
        {layer: bank.vectors[layer] for layer in layers},
        {},
    )
