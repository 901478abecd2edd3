"""The StatsMergeLearner: a small network from layer statistics to merging coefficients.

Paper section 3.2: a 2-layer MLP, S_k^ℓ → λ_k^ℓ, the only trainable part of the system. There are
two readings: ``shared``, one network for all layers and tasks (the text's SML(S_k)), and
``per_layer``, one for each layer (the form of the released code). Both start at λ = 0.3 everywhere,
i.e. at task arithmetic; without an anchor at 1/K, i.e. at the average.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from statsmerging.choices import (
    PREDICTING,
    Anchor,
    Granularity,
    LearnerKind,
    Link,
    Standardise,
    VectorCoefficients,
)
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.statistics import LayerStatistics

#: λ before the first step, where θ₀ is the anchor: task arithmetic.
ANCHORED_START = 0.3


def can_predict(kind: LearnerKind, vectors: VectorCoefficients) -> bool:
    """Whether a learner has coefficients for other experts: nothing of it belongs to its own."""
    return kind in PREDICTING and vectors not in ("table", "trained")


class StatsMergeLearner(nn.Module):
    """Maps statistics to coefficients λ: L × K (layer-wise) or K (task-wise).

    Args:
        statistics: raw statistics, as ``layer_statistics`` returns them.
        granularity: ``layer_wise`` for one coefficient per layer and task, ``task_wise`` for one
            per task, from statistics pooled over the layers.
        kind: ``shared``, one 2-layer MLP for every layer and task; ``per_layer``, an MLP of its own
            for each layer; ``shared_and_free``, the shared MLP and a table of offsets beside it;
            ``free``, a plain table of coefficients that never sees a statistic;
            ``constant_input``, the shared MLP fed with a constant; ``linear``, one linear model in
            place of the shared MLP. The last three are controls: does the statistic matter, and
            does the network?
        standardise: see ``LayerStatistics.standardised``.
        link: what follows the network: ``identity``; ``sigmoid`` (0 < λ < 1); ``clamp`` to
            [0, 1]; ``softmax`` over tasks (the λ of a layer sum to 1, so it starts at 1/K).
        hidden: width of the MLP's hidden layer.
        scale: factor on the network's output before the link. It sets how far one optimiser
            step moves λ, independent of the learning rate of the hidden layer.
        anchor: how the coefficients are merged, see ``MergedModel``; it sets the default start.
        start: λ before the first step; ``None``: 0.3 with the anchor, 1/K without it, so that the
            coefficients sum to 1. It must lie where the link leads; ``softmax`` starts at 1/K.
        vectors: layer-wise λ of layers that are no matrices (biases, norms, tokens): ``learned``
            like the others; ``table``, free numbers; ``mean``, always 1/K, and so ``trained``;
            ``only``, learned, while those of matrices keep their start.
        vector_scale: further factor on the output for such layers. Their task vectors are so short
            that the same step of λ hardly moves the weights.
        generator: source of the initial hidden weights; torch's global one if ``None``.

    Raises:
        MergingError: an unknown choice, a start that the link does not reach, or a hidden width
            below 1.
    """

    statistics: Tensor
    is_vector: Tensor

    def __init__(
        self,
        statistics: LayerStatistics,
        granularity: Granularity = "layer_wise",
        *,
        kind: LearnerKind = "shared",
        standardise: Standardise = "both",
        link: Link = "identity",
        hidden: int = 64,
        scale: float = 1.0,
        anchor: Anchor = "pretrained",
        start: float | None = None,
        vectors: VectorCoefficients = "learned",
        vector_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice("granularity", granularity, Granularity)
        check_choice("kind", kind, LearnerKind)
        check_choice("standardise", standardise, Standardise)
        check_choice("link", link, Link)
        check_choice("vectors", vectors, VectorCoefficients)
        check_choice("anchor", anchor, Anchor)
        if hidden < 1:
            raise MergingError(f"hidden={hidden}: must be at least 1")
        self.granularity: Granularity = granularity
        self.kind: LearnerKind = kind
        self.standardise: Standardise = standardise
        self.link: Link = link
        self.scale = scale
        self.anchor: Anchor = anchor
        self.start = start
        self.vectors: VectorCoefficients = vectors
        self.vector_scale = vector_scale
        _check_start(link, start, self._start(len(statistics.tasks)))
        self.columns = statistics.columns
        self.layers = statistics.layers
        if granularity == "singular_wise":
            raise MergingError("granularity=singular_wise: use DirectionLearner")
        if kind == "free_per_layer":
            raise MergingError("kind=free_per_layer: only for singular directions; use free")

        values = self._inputs(statistics)
        self.register_buffer("statistics", values, persistent=False)
        layers, tasks, features = values.shape
        self.network: nn.Module
        if kind == "free":
            self.network = _FreeTable(layers, tasks)
        elif kind == "linear":
            self.network = LinearModel(features)
        elif kind == "per_layer":
            self.network = TwoLayerNetworks(layers, features, hidden, generator)
        else:
            self.network = TwoLayerNetworks(1, features, hidden, generator)
        own = kind == "shared_and_free"
        self.offsets = nn.Parameter(torch.zeros(layers, tasks)) if own else 0.0
        self.register_buffer("is_vector", self._is_vector(statistics), persistent=False)
        if vectors == "table" and granularity == "layer_wise":
            self.vector_table = nn.Parameter(torch.zeros(int(self.is_vector.sum()), tasks))

    def forward(self) -> Tensor:
        """The coefficients λ, L × K or K, differentiable in the learner's parameters."""
        return self._coefficients(self.statistics, self.is_vector)

    @property
    def predicts(self) -> bool:
        """Whether there is anything to predict from: a table has none."""
        return can_predict(self.kind, self.vectors)

    def predict(self, statistics: LayerStatistics) -> Tensor:
        """Coefficients for other experts of the same backbone, without learning: L × K' or K'.

        Args:
            statistics: raw, with the columns the learner was made with; they are standardised
                among themselves.

        Raises:
            MergingError: a ``free`` table, which knows its own experts alone; other columns; for
                networks ``per_layer``, other layers.
        """
        if not self.predicts:
            raise MergingError(
                f"kind={self.kind}, vectors={self.vectors}: a table has no coefficients for other "
                "experts"
            )
        if statistics.columns != self.columns:
            raise MergingError(
                f"the learner knows the statistics {', '.join(self.columns)}, "
                f"not {', '.join(statistics.columns)}"
            )
        own_networks = self.kind == "per_layer" and self.granularity == "layer_wise"
        if own_networks and statistics.layers != self.layers:
            other = sorted(set(statistics.layers) ^ set(self.layers))
            raise MergingError(
                "kind=per_layer: the other experts changed other layers than those it was "
                f"learned from: {', '.join(map(repr, other[:3]))}"
            )
        inputs = self._inputs(statistics).to(self.statistics)
        return self._coefficients(inputs, self._is_vector(statistics).to(inputs.device))

    def _inputs(self, statistics: LayerStatistics) -> Tensor:
        """What the network sees, L × K × F, or 1 × K × F for task-wise merging."""
        pooled = statistics if self.granularity == "layer_wise" else statistics.pooled()
        values = pooled.standardised(self.standardise).values.float()
        return torch.ones_like(values[:, :, :1]) if self.kind == "constant_input" else values

    @staticmethod
    def _is_vector(statistics: LayerStatistics) -> Tensor:
        """Whether each layer is no matrix, L × 1."""
        return torch.tensor([[name in statistics.vectors] for name in statistics.layers])

    def _coefficients(self, inputs: Tensor, is_vector: Tensor) -> Tensor:
        """λ from what the network sees, and from which layers are no matrices."""
        tasks = inputs.shape[1]
        output = self.scale * (self.network(inputs) + self.offsets)
        if self.granularity == "task_wise":
            return LINKS[self.link](output, self._start(tasks)).squeeze(0)
        if self.vector_scale != 1:
            output = output * torch.where(is_vector, self.vector_scale, 1.0)
        if self.vectors == "only":
            output = output.masked_fill(~is_vector, 0)
        elif self.vectors == "table":
            table = self.scale * self.vector_scale * self.vector_table
            output = output.masked_scatter(is_vector.expand_as(output), table)
        coefficients = LINKS[self.link](output, self._start(tasks))
        if self.vectors in ("mean", "trained"):
            coefficients = coefficients.masked_fill(is_vector, 1 / tasks)
        return coefficients

    def _start(self, tasks: int) -> float:
        """λ where the network gives 0."""
        if self.start is not None:
            return self.start
        return ANCHORED_START if self.anchor == "pretrained" else 1 / tasks


class TwoLayerNetworks(nn.Module):
    """A 2-layer MLP for every layer, or one shared by all (``layers=1``): L × N × F → L × N.

    The output layer starts at zero, so the offset from the initial coefficient is exactly 0.
    """

    def __init__(
        self, layers: int, features: int, hidden: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.hidden_weight = nn.Parameter(torch.empty(layers, features, hidden))
        self.hidden_bias = nn.Parameter(torch.empty(layers, 1, hidden))
        self.output_weight = nn.Parameter(torch.zeros(layers, hidden, 1))
        self.output_bias = nn.Parameter(torch.zeros(layers, 1, 1))
        bound = 1 / math.sqrt(features)
        nn.init.uniform_(self.hidden_weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.hidden_bias, -bound, bound, generator=generator)

    def forward(self, statistics: Tensor) -> Tensor:
        hidden = torch.relu(statistics @ self.hidden_weight + self.hidden_bias)
        return (hidden @ self.output_weight + self.output_bias).squeeze(2)


class LinearModel(nn.Linear):
    """One number from the features of each layer and task: L × K × F → L × K, starting at 0."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, statistics: Tensor) -> Tensor:
        return super().forward(statistics).squeeze(-1)


class _FreeTable(nn.Module):
    """One free offset per layer and task, L × K, starting at 0: AdaMerging's parametrisation."""

    def __init__(self, layers: int, tasks: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(layers, tasks))

    def forward(self, statistics: Tensor) -> Tensor:
        del statistics
        return self.table


def _identity(output: Tensor, start: float) -> Tensor:
    return start + output


def _sigmoid(output: Tensor, start: float) -> Tensor:
    return torch.sigmoid(math.log(start / (1 - start)) + output)


def _clamp(output: Tensor, start: float) -> Tensor:
    return (start + output).clamp(0, 1)


def _softmax(output: Tensor, start: float) -> Tensor:
    del start
    return torch.softmax(output, dim=-1)


#: (network's output, start) → λ.
LINKS: dict[Link, Callable[[Tensor, float], Tensor]] = {
    "identity": _identity,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "clamp": _clamp,
}


def _check_start(link: Link, given: float | None, start: float) -> None:
    if link == "softmax" and given is not None:
        raise MergingError(f"start={given:g}: link=softmax starts at 1/K; give none")
    if link == "sigmoid" and not 0 < start < 1:
        raise MergingError(f"start={start:g}: link=sigmoid needs one above 0 and below 1")
    if link == "clamp" and not 0 <= start <= 1:
        raise MergingError(f"start={start:g}: link=clamp needs one from 0 to 1")
