"""Experts and unlabeled inputs in, a merged model out: what a job does, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from statsmerging.choices import Accelerator, Granularity
from statsmerging.errors import UserError, printable
from statsmerging.learning.fit import create_learner, create_student, train
from statsmerging.learning.learned_coefficients import merged_state
from statsmerging.learning.library.inputs import Inputs, hold_out, read_inputs
from statsmerging.learning.library.models import Models, check_tasks
from statsmerging.learning.library.options import HIDDEN, FitOptions, Learner, Sections
from statsmerging.learning.mergeable import (
    Mergeable,
    decomposition_of,
    layer_features,
    of_directions,
)
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.trained_vectors import StudentWithTrainedVectors
from statsmerging.merging.bank import Coefficient, TaskVectorBank
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.spectral import SpectralBank
from statsmerging.scoring.scores import share_of_same_class
from statsmerging.zoo.network import frozen_copy


def fit(
    backbone: nn.Module,
    pretrained: Mapping[str, Tensor],
    experts: Mapping[str, Mapping[str, Tensor]],
    heads: Mapping[str, nn.Module],
    inputs: Mapping[str, Inputs],
    *,
    learner: Learner = "shared",
    normalise: Callable[[Tensor], Tensor] | None = None,
    accelerator: Accelerator = "auto",
    progress: bool = True,
    **options: Unpack[FitOptions],
) -> LearnedMerge:
    """Learn the coefficients of a merge from the experts' own labels on unlabeled inputs.

    What a job with ``method=stats_merging`` does, on models and inputs in memory. Nothing that is
    given is changed.

    Args:
        backbone: any module, inputs → features. Its own weights do not matter.
        pretrained: θ₀ by tensor name, its state dict before fine-tuning.
        experts: task → its state dict after fine-tuning.
        heads: task → its classification head, features → class scores, N × C.
        inputs: task → unlabeled inputs, see ``read_inputs``.
        learner: see ``StatsMergeLearner`` and ``DirectionLearner``; or a function of the statistics
            that gives a module of your own.
        normalise: a batch of inputs → what the backbone takes, e.g. of images in bytes.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        progress: whether a terminal shows bars.
        options: see ``FitOptions``.

    Raises:
        UserError: an option, a task's name or inputs that are not valid; one line that says which.
        MergingError: weights that do not fit together, or a choice that does not exist.
    """
    sections = Sections.of(learner, options)
    models = Models.checked(backbone, pretrained, experts, heads, normalise, accelerator, progress)
    check_tasks("inputs", inputs, experts)
    read = read_inputs({task: inputs[task] for task in experts})
    parts = {task: hold_out(task, each, sections.held_out) for task, each in read.items()}
    learning = {task: part[0] for task, part in parts.items()}
    held_out = {task: part[1] for task, part in parts.items()}
    module, curves = _trained(models, learner, sections, learning)
    return _result(models, module, sections, curves, held_out)


@dataclass(frozen=True, eq=False, repr=False)
class LearnedMerge:
    """What ``fit`` has learned.

    Attributes:
        coefficients: λ, L × K, K, or one per singular direction.
        state: the merged weights by tensor name, in θ₀'s precision: ``backbone.load_state_dict``.
        agreement: task → share of held-out inputs on which merged model and expert have one class.
        held_out: task → number of these inputs.
        curves: ``loss``, ``loss/TASK`` and ``learner_gradient_norm``, one value per step.
        learner: the module that gives the coefficients.
        bank: what they merge: layers, tasks, task vectors or singular directions.
        backbone: the architecture.
        granularity: of the coefficients.
    """

    coefficients: Tensor
    state: dict[str, Tensor]
    agreement: dict[str, float]
    held_out: dict[str, int]
    curves: dict[str, list[float]]
    learner: nn.Module
    bank: Bank
    backbone: nn.Module
    granularity: Granularity

    @cached_property
    def model(self) -> nn.Module:
        """The merged backbone, inputs → features, in evaluation mode: a copy of its own."""
        model = deepcopy(self.backbone)
        model.load_state_dict(self.state)
        return model.eval()

    def listed(self) -> list[Coefficient]:
        """The coefficients one by one, with their layer, task and, if any, direction."""
        return self.bank.listed(self.coefficients)

    def __repr__(self) -> str:
        loss, tasks = self.curves["loss"], self.bank.tasks
        values: dict[str, list[float]] = defaultdict(list)
        for each in self.listed():
            values[each.task].append(each.value)
        lines = [
            f"LearnedMerge: {self.granularity}, {len(self.bank.layers)} layers, "
            f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}; "
            f"loss {loss[0]:.3f} → {loss[-1]:.3f} in {len(loss)} steps"
        ]
        width = max(map(len, tasks))
        for task in tasks:
            mean = sum(values[task]) / len(values[task])
            lines.append(
                f"  {task:{width}}  λ {min(values[task]):.3f} to {max(values[task]):.3f}, "
                f"mean {mean:.3f}; agrees with its expert on {self.agreement[task]:.1%} of "
                f"{self.held_out[task]} inputs"
            )
        return "\n".join(lines)


def _trained(
    models: Models, learner: Learner, sections: Sections, inputs: dict[str, Tensor]
) -> tuple[StatsMerging, dict[str, list[float]]]:
    """The module after its last step, and its learning curves."""
    bank = TaskVectorBank.from_state_dicts(models.pretrained, models.experts, device=models.device)
    parts = _mergeable(bank, sections)
    network = _network(learner, parts, sections)
    backbone = frozen_copy(models.backbone).to(models.device)
    student = create_student(sections.method, backbone, parts.bank)
    targets = {
        task: models.scores(task, state, inputs[task], f"teacher {printable(task)}")
        for task, state in models.experts.items()
    }
    module = StatsMerging(
        network,
        student,
        models.heads,
        targets,
        models.normalise,
        sections.labels,
        sections.method.objective,
        sections.trainer,
    )
    curves = _Curves()
    train(
        module,
        inputs,
        accelerator="gpu" if models.device.type == "cuda" else "cpu",
        device=models.device,
        description="learning coefficients",
        loggers=[curves],
        progress=models.progress,
    )
    return module, dict(curves.values)


def _mergeable(bank: TaskVectorBank, sections: Sections) -> Mergeable:
    """The bank at the chosen granularity, with statistics."""
    statistics = layer_features(bank, sections.statistics)
    if sections.method.granularity != "singular_wise":
        return Mergeable(bank, statistics)
    decomposition = decomposition_of(sections.spectral, torch.float32)
    directions = SpectralBank.from_bank(bank, decomposition)
    return of_directions(bank, directions, statistics, sections.spectral)


def _network(learner: Learner, parts: Mergeable, sections: Sections) -> nn.Module:
    """The learner before its first step.

    Raises:
        UserError: one's own is no module, or has nothing to learn.
        MergingError: its coefficients have another shape than the bank's.
    """
    if not callable(learner):
        return create_learner(
            sections.method,
            parts.statistics,
            hidden=HIDDEN,
            standardise=sections.statistics.standardise,
            seed=sections.trainer.seed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sections.trainer.seed)
        network: object = learner(parts.statistics)
    if not isinstance(network, nn.Module):
        raise UserError(f"learner: it gives {type(network).__name__}, not a torch.nn.Module")
    if not any(weight.requires_grad for weight in network.parameters()):
        raise UserError(f"learner: {type(network).__name__} has no parameter to be learned")
    parts.bank.split(network())
    return network


def _result(
    models: Models,
    module: StatsMerging,
    sections: Sections,
    curves: dict[str, list[float]],
    held_out: dict[str, Tensor],
) -> LearnedMerge:
    """Merged weights, and their agreement with the experts."""
    student = module.student
    with torch.no_grad():
        coefficients = module.coefficients().cpu()
        offsets = student.trained() if isinstance(student, StudentWithTrainedVectors) else {}
        state = merged_state(student.bank, coefficients, sections.method.anchor, offsets)
    agreement = {}
    for task, inputs in held_out.items():
        name = printable(task)
        teacher = models.scores(task, models.experts[task], inputs, f"teacher {name}")
        merged = models.scores(task, state, inputs, f"merged model on {name}")
        agreement[task] = share_of_same_class(merged, teacher.argmax(dim=1))
    return LearnedMerge(
        coefficients=coefficients,
        state={name: state[name].cpu().to(start.dtype) for name, start in models.original.items()},
        agreement=agreement,
        held_out={task: len(inputs) for task, inputs in held_out.items()},
        curves=curves,
        learner=module.learner,
        bank=student.bank,
        backbone=models.backbone,
        granularity=sections.method.granularity,
    )


class _Curves(Logger):
    """Keeps learning curves in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[float]] = defaultdict(list)

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """There are none to be kept."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for metric, value in metrics.items():
            if metric != "epoch":
                self.values[metric].append(float(value))
