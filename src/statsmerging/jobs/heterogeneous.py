"""Experts of other architectures: from the config to teachers, and to students in the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from statsmerging.data.image_cache import SuiteImages
from statsmerging.data.suites import Split, Suite, Task
from statsmerging.distillation.settings import OtherExpertSettings
from statsmerging.distillation.students import student_weights
from statsmerging.distillation.teachers import Teacher, teacher_scores
from statsmerging.evaluation.accuracy import Scorer
from statsmerging.evaluation.candidate import Candidate
from statsmerging.jobs.schema import Config
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError
from statsmerging.runs.results import TaskAccuracy
from statsmerging.zoo.backbones import preprocess_of
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.single_expert import single_expert_finetuned, single_expert_from_file


@dataclass(frozen=True)
class OtherExpert:
    """A task's expert of another architecture, the teacher of the one that is merged.

    Attributes:
        task: what it is an expert of.
        architecture: its label, as it stands in the results.
        zoo: a zoo of this expert alone.
        images: the suite in its geometry.
        learned_from: number of unlabeled images of its distillation.
    """

    task: Task
    architecture: str
    zoo: Zoo
    images: SuiteImages
    learned_from: int

    def on(self, split: Split) -> Teacher:
        """As the teacher on one split."""
        return Teacher(self.zoo, self.images.split(self.task, split))

    def test_accuracy(self, cache: Cache) -> TaskAccuracy:
        """Of this expert itself, before any distillation."""
        weights = {self.task.name: self.zoo.experts[self.task.name].state}
        candidate = Candidate(f"{self.architecture}, the teacher", self.zoo, weights)
        return Scorer(self.images, cache).score(candidate).seen[self.task.name]


def check_names(config: Config, suite: Suite) -> None:
    """Refuse experts of tasks that the suite does not merge.

    Raises:
        UserError: names them, and the tasks there are.
    """
    known = [task.name for task in suite.seen]
    unknown = [name for name in config.heterogeneous.experts if name not in known]
    if unknown:
        raise UserError(
            f"heterogeneous.experts: {', '.join(unknown)} is no seen task of the suite; it has "
            f"{', '.join(known)}"
        )


def other_experts(config: Config, suite: Suite, cache: Cache) -> dict[str, OtherExpert]:
    """Seen task → its expert of another architecture, made or read.

    Raises:
        UserError: a file that cannot be read or does not fit.
        MergingError: tensors that do not match the expert's backbone, or NaN.
    """
    settings = config.heterogeneous
    experts = {}
    for task in suite.seen:
        if task.name in settings.experts:
            expert = settings.experts[task.name]
            experts[task.name] = OtherExpert(
                task,
                expert.backbone.label,
                _zoo(config, expert, suite, task, cache),
                SuiteImages(suite, preprocess_of(expert.backbone), cache, config.corruption),
                len(task.sources[settings.distillation.images]),
            )
    return experts


def with_students(
    config: Config,
    zoo: Zoo,
    images: SuiteImages,
    experts: Mapping[str, OtherExpert],
    cache: Cache,
) -> Zoo:
    """The zoo after every other expert was distilled into its architecture.

    Args:
        zoo: the target; these tasks have θ₀ there.
        images: the suite in the target's geometry.
    """
    settings = config.heterogeneous.distillation
    teachers = {name: expert.on(settings.images) for name, expert in experts.items()}
    scores = teacher_scores(teachers, cache)
    students = {
        name: student_weights(
            zoo,
            name,
            images.split(expert.task, settings.images),
            scores[name],
            settings,
            cache=cache,
            accelerator=config.accelerator,
        )
        for name, expert in experts.items()
    }
    made = {name: Expert(state, zoo.experts[name].head) for name, state in students.items()}
    return replace(zoo, experts={**zoo.experts, **made})


def _zoo(
    config: Config, expert: OtherExpertSettings, suite: Suite, task: Task, cache: Cache
) -> Zoo:
    if expert.file is not None:
        return single_expert_from_file(
            expert.backbone, expert.file, task, accelerator=config.accelerator
        )
    return single_expert_finetuned(
        expert.backbone,
        config.heterogeneous.teachers,
        suite,
        task,
        cache=cache,
        accelerator=config.accelerator,
    )
