"""Classification heads: one frozen linear map per task, from features to class scores."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from statsmerging.records.errors import UserError

#: Inverse regularisation strength of the linear probe, on standardised features.
PROBE_STRENGTH = 0.1
PROBE_ITERATIONS = 300


class Head(nn.Module):
    """A frozen linear head.

    Args:
        weight: C × D.
        bias: C.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Class scores N × C of features N × D."""
        return nn.functional.linear(features, self.weight, self.bias)


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int) -> Head:
    """Logistic regression on the features of the pre-trained backbone (N × D), as a head.

    The features are standardised for the fit; the returned head takes them raw. A class that has
    no training image keeps the lowest score.

    Raises:
        UserError: all images are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(labels.unique()) < 2:
        raise UserError("a head cannot be fitted: all training images are of one class")
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    probe = LogisticRegression(C=PROBE_STRENGTH, max_iter=PROBE_ITERATIONS)
    with warnings.catch_warnings():
        # A probe that stops at the iteration limit is as good a fixed head as any.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(((features - mean) / deviation).numpy(), labels.numpy())
    weight = torch.from_numpy(probe.coef_).float()
    bias = torch.from_numpy(probe.intercept_).float()
    present = torch.from_numpy(probe.classes_)
    if len(present) == 2:
        # scikit-learn gives two classes one score: that of the second against the first.
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight = weight / deviation
    bias = bias - weight @ mean
    full_weight = torch.zeros(classes, features.shape[1])
    full_bias = torch.full((classes,), float(bias.min()) - 1e4)
    full_weight[present], full_bias[present] = weight, bias
    return Head(full_weight, full_bias)
