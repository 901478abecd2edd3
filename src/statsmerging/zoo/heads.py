"""Classification heads: one frozen linear map per task, from features to class scores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from statsmerging.data.suites import Task
from statsmerging.errors import UserError, printable
from statsmerging.merging.state_dicts import check_finite
from statsmerging.zoo.formats.checkpoints import around, is_adapter, read_file, wrapper_of
from statsmerging.zoo.formats.foreign import CLASSIFIERS, NORMALISES, classifier_names
from statsmerging.zoo.formats.lora import Adapter

#: Inverse regularisation strength of the linear probe, on standardised features.
PROBE_STRENGTH = 0.1

PROBE_ITERATIONS = 300


class Head(nn.Module):
    """A frozen linear head.

    Args:
        weight: C × D.
        bias: C.
        normalises: whether the features are scaled to unit length first, as in CLIP's zero-shot
            heads.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, normalises: bool = False) -> None:
        super().__init__()
        # Files may hold half precision; features are float32.
        precision = torch.promote_types(weight.dtype, torch.float32)
        self.register_buffer("weight", weight.to(precision))
        self.register_buffer("bias", bias.to(precision))
        self.normalises = normalises
        if normalises:  # in the state, so that files and hashes of the two kinds differ
            self.register_buffer(NORMALISES, torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        """Class scores N × C of features N × D."""
        if self.normalises:
            features = nn.functional.normalize(features, dim=-1)
        # Files may hold double precision too.
        weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
        return nn.functional.linear(features, weight, bias)


class TrainableHead(Head):
    """A head whose weights learn, from those of a frozen one."""

    def __init__(self, head: Head) -> None:
        super().__init__(head.weight, head.bias, normalises=head.normalises)
        for name in ("weight", "bias"):
            start = getattr(self, name).clone()
            delattr(self, name)
            self.register_parameter(name, nn.Parameter(start))

    def frozen(self) -> Head:
        """The head as it is now, on the CPU."""
        weight, bias = self.weight.detach().cpu().clone(), self.bias.detach().cpu().clone()
        return Head(weight, bias, normalises=self.normalises)


class CorrectedHead(Head):
    """A head on corrected features.

    Args:
        head: the frozen head.
        correction: features N × D → N × D.
    """

    def __init__(self, head: Head, correction: nn.Module) -> None:
        super().__init__(head.weight, head.bias, normalises=head.normalises)
        self.correction = correction

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.correction(features))


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int) -> Head:
    """Logistic regression on the features of the pre-trained backbone (N × D), as a head.

    The features are standardised for the fit; the returned head takes raw features, because the
    standardisation is multiplied into its weights. A class without training images gets the lowest
    score.

    Args:
        features: N × D, float32.
        labels: N.
        classes: C, the number of rows of the head.

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
        # A probe that stops at the iteration limit is still a usable fixed head.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(((features - mean) / deviation).numpy(), labels.numpy())
    weight = torch.from_numpy(probe.coef_).float()
    bias = torch.from_numpy(probe.intercept_).float()
    present = torch.from_numpy(probe.classes_)
    if len(present) == 2:
        # For two classes scikit-learn has one score, that of the second class against the first.
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight = weight / deviation
    bias = bias - weight @ mean
    full_weight = torch.zeros(classes, features.shape[1])
    full_bias = torch.full((classes,), float(bias.min()) - 1e4)
    full_weight[present], full_bias[present] = weight, bias
    return Head(full_weight, full_bias)


def check_tells_apart(task: Task) -> None:
    """Raise ``UserError`` unless the task has classes to tell apart."""
    if len(task.classes) < 2:
        raise UserError(
            f"{printable(task.name)} has one class, so every model is right: leave it out of "
            "suite.tasks"
        )


def check_classes(head: Head, task: Task) -> None:
    """Raise ``UserError`` unless the head has as many classes as the task, at least two."""
    check_tells_apart(task)
    if len(head.weight) != len(task.classes):
        name = printable(task.name)
        raise UserError(
            f"the head of {name} has {len(head.weight)} classes, {name} has {len(task.classes)}"
        )


def check_features(head: Head, task: Task, width: int) -> None:
    """Raise ``UserError`` unless the head takes features of the backbone's width."""
    if head.weight.shape[1] != width:
        raise UserError(
            f"the head of {printable(task.name)} takes {head.weight.shape[1]} features, the "
            f"backbone gives {width}"
        )


def read_head(path: Path) -> Head:
    """A head from any file of weights: its tensor ``weight``, and ``bias`` if it has one.

    They may stand behind a classifier's usual name, and behind the prefixes that training puts
    before the names of a model.

    Raises:
        UserError: a file that cannot be read, or one without a linear layer.
        MergingError: NaN or infinite weights (names the tensor).
    """
    content, found = read_file(path), printable(str(path))
    endings = [f"{name}.weight" for name in CLASSIFIERS]
    prefixes = around(wrapper_of(content.tensors, ["weight", *endings]))
    names = [f"{prefix}{name}" for prefix in prefixes for name in ("", *CLASSIFIERS)]
    layer = _first_linear(content.tensors, [name.rstrip(".") for name in names])
    if layer is None:
        raise UserError(f"{found}: a head needs a tensor weight (classes × features)")
    check_finite(layer, found=found)
    normalises = NORMALISES in content.tensors or bool(content.attributes.get("normalize"))
    return head_from(layer, normalises=normalises)


def classifier_in(source: Path, backbone: nn.Module) -> Head | None:
    """The classifier that came with the weights of a timm backbone, as a head.

    Raises:
        UserError: a file that cannot be read, or an architecture that averages two classifiers.
    """
    state = Adapter.read(source).tensors if is_adapter(source) else read_file(source).tensors
    prefixes = around(wrapper_of(state, backbone.state_dict()))
    own = classifier_names(backbone)
    if len(own) > 1 and all(f"{prefixes[0]}{name}.weight" in state for name in own):
        raise UserError(f"{printable(str(source))}: {' and '.join(own)} together are no one head")
    names = [f"{prefix}{name}" for prefix in prefixes for name in (*own, *CLASSIFIERS)]
    layer = _first_linear(state, names)
    return None if layer is None else head_from(layer)


def head_from(layer: Mapping[str, Tensor], *, normalises: bool = False) -> Head:
    """The head of a linear layer: ``weight`` C × D and, if there is one, ``bias`` C.

    Raises:
        UserError: a bias of another length than the weight.
    """
    weight = layer["weight"]
    bias = layer["bias"] if "bias" in layer else torch.zeros(len(weight))
    if bias.shape != weight.shape[:1]:
        shapes = f"bias {tuple(bias.shape)}, weight {tuple(weight.shape)}"
        raise UserError(f"a head whose bias does not fit its weight: {shapes}")
    return Head(weight, bias, normalises=normalises)


def _first_linear(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor] | None:
    """``weight`` and, if there is one, ``bias`` of the first of these names that is linear."""
    for name in names:
        prefix = f"{name}." if name else ""
        if f"{prefix}weight" in state and state[f"{prefix}weight"].dim() == 2:
            parts = [part for part in ("weight", "bias") if f"{prefix}{part}" in state]
            return {part: state[f"{prefix}{part}"] for part in parts}
    return None
