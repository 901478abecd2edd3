"""The heart, in pure torch: task vectors, statistics, learner, functional merge, methods.

>>> bank = TaskVectorBank.from_state_dicts(pretrained, {"mnist": theta_1, "svhn": theta_2})
>>> statistics = layer_statistics(bank, rank=3)
>>> learner = StatsMergeLearner(statistics, granularity="layer_wise")
>>> student = MergedModel(backbone, bank)
>>> logits = heads["mnist"](student(images, learner()))  # differentiable in the learner
"""

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.merged_model import MergedModel
from statsmerging.merging.statistics import LayerStatistics, layer_statistics

__all__ = [
    "LayerStatistics",
    "MergedModel",
    "MergingError",
    "StatsMergeLearner",
    "TaskVectorBank",
    "layer_statistics",
]
