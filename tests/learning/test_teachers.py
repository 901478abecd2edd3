"""What teachers tell of the learning images, and what the ground truth does in their place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.labels import Teacher, learning_targets
from statsmerging.learning.settings import LabelsSettings
from statsmerging.store.cache import Cache


def test_ground_truth_needs_a_label_of_each_learning_image(tmp_path: Path) -> None:
    zoo = cast(Any, SimpleNamespace(experts={"mnist": SimpleNamespace(head=torch.nn.Linear(2, 3))}))
    settings = LabelsSettings(kind="ground_truth")

    def targets(labels: list[int]) -> torch.Tensor:
        count = len(labels)
        images = torch.zeros(count, 3, 1, 1, dtype=torch.uint8)
        split = ImageSplit(images, torch.tensor(labels), torch.zeros(count, 16), "key")
        return learning_targets(settings, {"mnist": Teacher(zoo, split)}, Cache(tmp_path))["mnist"]

    assert targets([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(UserError, match="ground_truth: learning images of mnist have no label"):
        targets([2, -1])
