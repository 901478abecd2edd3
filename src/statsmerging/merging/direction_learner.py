"""The StatsMergeLearner of singular directions: statistics of a direction → its coefficient.

The same small network as in the paper (section 3.2), shared by all directions of all layers and
experts. It starts at the data-free merge: λ = 1 for orthonormal directions, which is TSV-M, and the
mean of the experts for everything that is not a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from statsmerging.choices import LearnerKind, VectorCoefficients
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.learner import (
    ANCHORED_START,
    LinearModel,
    TwoLayerNetworks,
    can_predict,
)

#: Standardised statistics end here. Biases and norms lie many deviations from the matrices, and a
#: network that sees how many gives some of them coefficients of 50.
FARTHEST = 3.0


class DirectionLearner(nn.Module):
    """Maps statistics of D singular directions to D coefficients λ.

    Args:
        statistics: raw, as ``direction_statistics`` returns them, perhaps with those of layers.
        kind: ``shared``, one 2-layer MLP for all directions; ``linear``, one linear model;
            ``per_layer``, an MLP of its own for each layer; ``shared_and_free``, the shared MLP and
            a table of offsets beside it. Without statistics: ``free``, a table of all λ;
            ``free_per_layer``, a table with one λ per layer and expert; ``constant_input``, one
            number by which all starting coefficients are scaled.
        vectors: λ of directions that are whole task vectors (of biases, norms, tokens):
            ``learned`` like the others; ``table``, free numbers; ``mean``, always 1/K, and so
            ``trained``; ``only``, learned, while those of matrices keep their start.
        hidden: width of the MLP's hidden layer.
        scale: factor on the network's output: how far one optimiser step moves λ.
        vector_scale: further factor for whole task vectors, which are so short that the same
            change of λ hardly moves the weights.
        start: λ of matrices before the first step; ``None``: 1 for orthonormal directions, 0.3 for
            raw ones.
        generator: source of the initial hidden weights; torch's global one if ``None``.
        scaled_by: statistics whose mean and deviation put the inputs on one scale, where the
            learner learns from several sets of experts; ``None``: ``statistics`` alone.

    Raises:
        MergingError: an unknown choice, or a hidden width below 1.
    """

    inputs: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        statistics: DirectionStatistics,
        *,
        kind: LearnerKind = "shared",
        vectors: VectorCoefficients = "learned",
        hidden: int = 64,
        scale: float = 1.0,
        vector_scale: float = 1.0,
        start: float | None = None,
        generator: torch.Generator | None = None,
        scaled_by: Sequence[DirectionStatistics] | None = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, LearnerKind)
        check_choice("vectors", vectors, VectorCoefficients)
        if hidden < 1:
            raise MergingError(f"hidden={hidden}: must be at least 1")
        self.kind: LearnerKind = kind
        self.vectors: VectorCoefficients = vectors
        self.scale = scale
        self.vector_scale = vector_scale
        self.start = start
        self.statistics = statistics
        present = torch.cat([each.values[each.present] for each in scaled_by or (statistics,)])
        deviation = present.std(dim=0, correction=0)
        # A constant column tells nothing; its rounding must not be blown up.
        constant = deviation <= 1e-6 * present.abs().amax(dim=0)
        self.register_buffer("mean", present.mean(dim=0))
        self.register_buffer("deviation", deviation.masked_fill(constant, torch.inf))
        self.register_buffer("inputs", self._inputs(statistics), persistent=False)

        features, layers = statistics.values.shape[1], len(statistics.layers)
        self.network: nn.Module | None = None
        if kind in ("shared", "shared_and_free"):
            self.network = TwoLayerNetworks(1, features, hidden, generator)
        elif kind == "per_layer":
            self.network = TwoLayerNetworks(layers, features, hidden, generator)
        elif kind == "linear":
            self.network = LinearModel(features)
        else:
            sizes = {
                "free": len(statistics.values),
                "free_per_layer": layers * len(statistics.tasks),
                "constant_input": 1,
            }
            self.table = nn.Parameter(torch.zeros(sizes[kind]))
        own = kind == "shared_and_free"
        self.offsets = nn.Parameter(torch.zeros(len(statistics.values))) if own else 0.0
        if vectors == "table":
            self.vector_table = nn.Parameter(torch.zeros(int(statistics.whole.sum())))

    def forward(self) -> Tensor:
        """The coefficients λ, D, differentiable in the learner's parameters."""
        return self._coefficients(self.inputs, self.statistics)

    @property
    def predicts(self) -> bool:
        """Whether there is anything to predict from: a table has none."""
        return can_predict(self.kind, self.vectors)

    def predict(self, statistics: DirectionStatistics) -> Tensor:
        """Coefficients for other experts of the same backbone, without learning.

        Args:
            statistics: raw, with the columns the learner was made with; they are put on the scale
                of those.

        Raises:
            MergingError: a table, which knows its own experts alone; other columns; for networks
                ``per_layer``, other layers.
        """
        if not self.predicts:
            raise MergingError(
                f"kind={self.kind}, vectors={self.vectors}: a table has no coefficients for "
                "other experts"
            )
        if statistics.columns != self.statistics.columns:
            other = sorted(set(statistics.columns) ^ set(self.statistics.columns))
            raise MergingError(
                "the statistics are others than those the learner was made with: "
                f"{', '.join(other[:3])}"
            )
        if self.kind == "per_layer" and statistics.layers != self.statistics.layers:
            raise MergingError("kind=per_layer: the other experts changed other layers")
        return self._coefficients(self._inputs(statistics), statistics)

    def _inputs(self, statistics: DirectionStatistics) -> Tensor:
        """What the network sees, D × F: on the scale of the experts it is trained on."""
        values = (statistics.values.to(self.mean) - self.mean) / self.deviation
        values = values.clamp(-FARTHEST, FARTHEST)
        return values * statistics.present.to(values.device).unsqueeze(1)

    def _coefficients(self, inputs: Tensor, statistics: DirectionStatistics) -> Tensor:
        whole = statistics.whole.to(inputs.device)
        start = torch.where(whole, 1 / len(statistics.tasks), self._matrix_start(statistics))
        output = self._output(inputs, statistics) + self.offsets
        if self.kind == "constant_input":
            output = output * start  # one number scales the whole update
        else:
            output = output * torch.where(whole, self.vector_scale, 1.0)
        if self.vectors in ("mean", "trained"):
            output = output.masked_fill(whole, 0)
        elif self.vectors == "only":
            output = output.masked_fill(~whole, 0)
        elif self.vectors == "table":
            table = self.vector_scale * self.vector_table
            output = output.masked_fill(whole, 0).masked_scatter(whole, table)
        return start + self.scale * output

    def _output(self, inputs: Tensor, statistics: DirectionStatistics) -> Tensor:
        """One number per direction, 0 before the first step."""
        if self.kind == "free":
            return self.table
        if self.kind == "constant_input":
            return self.table.expand(len(inputs))
        if self.kind == "free_per_layer":
            index = statistics.layer * len(statistics.tasks) + statistics.task
            return self.table[index.to(inputs.device)]
        assert self.network is not None
        output: Tensor
        if self.kind == "per_layer":
            # A network per layer sees its directions as one batch, filled up with zeros.
            sizes = statistics.layer.bincount(minlength=len(statistics.layers)).tolist()
            padded = nn.utils.rnn.pad_sequence(list(inputs.split(sizes)), batch_first=True)
            rows = self.network(padded).unbind(0)
            return torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])
        output = self.network(inputs.unsqueeze(0)).squeeze(0)
        return output

    def _matrix_start(self, statistics: DirectionStatistics) -> float:
        if self.start is not None:
            return self.start
        return 1.0 if statistics.orthonormal else ANCHORED_START
