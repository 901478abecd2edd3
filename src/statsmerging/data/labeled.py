"""Labelled images, for making teachers; merging never sees this data set."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from statsmerging.data.sampler import Address


class LabeledBatch(NamedTuple):
    """Images uint8, B × 3 × S × S, and their classes int64, B."""

    images: Tensor
    labels: Tensor


class LabeledImages(Dataset[LabeledBatch]):
    """One task's training images; an item is a whole batch, given by its addresses.

    Args:
        images: uint8, N × 3 × S × S.
        labels: int64, N.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __getitem__(self, addresses: list[Address]) -> LabeledBatch:
        rows = torch.tensor([index for _, index in addresses])
        return LabeledBatch(self.images[rows], self.labels[rows])
