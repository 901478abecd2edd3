"""Experts of another architecture become experts of the one that is merged (paper, 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from statsmerging.choices import Split
from statsmerging.data.images import Images, ImageSplit, SuiteImages
from statsmerging.data.pictures import Preprocess
from statsmerging.data.suites import Suite, Task
from statsmerging.errors import UserError, printable
from statsmerging.learning.data_module import UnlabeledBatch, UnlabeledDataModule
from statsmerging.learning.finetuning import adamw, finetuned_zoo
from statsmerging.learning.labels import Teacher, distillation_loss, teacher_scores
from statsmerging.learning.settings import LabelsSettings, MergingSettings, StudentSettings
from statsmerging.learning.trainer import continue_from, create_trainer, forget
from statsmerging.merging.state_dicts import check_same_tensors
from statsmerging.runs.results import TaskAccuracy
from statsmerging.scoring.scores import Candidate, Scorer
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of, state_sha256
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.experts import Expert, Zoo, holds_expert, read_expert
from statsmerging.zoo.formats.foreign import CLASSIFIERS, weights_for
from statsmerging.zoo.heads import check_classes, check_features, classifier_in
from statsmerging.zoo.network import Network, inference_device
from statsmerging.zoo.settings import BackboneSettings, FinetunedZooSettings, OwnHeadsSettings
from statsmerging.zoo.weights import FileTensors, Weights, write_weights


def single_expert_finetuned(
    backbone: BackboneSettings,
    zoo: FinetunedZooSettings,
    suite: Suite,
    task: Task,
    *,
    cache: Cache,
    accelerator: str,
) -> Zoo:
    """A zoo of one expert, fine-tuned on the task's training images under a linear probe."""
    alone = SuiteImages(replace(suite, seen=(task,), unseen=()), preprocess_of(backbone), cache)
    heads = OwnHeadsSettings(kind="own")
    return finetuned_zoo(backbone, zoo, heads, alone, cache=cache, accelerator=accelerator)


def single_expert_from_file(
    backbone: BackboneSettings, file: Path, task: Task, *, accelerator: str
) -> Zoo:
    """A zoo of one expert from a file; its θ₀ is unknown, so the expert stands in for it.

    Args:
        file: what ``write_expert`` wrote, or published weights with their classifier.

    Raises:
        UserError: a file that cannot be read, no head in it, or one of another number of classes.
        MergingError: tensors that do not match the backbone (names and both shapes), or NaN.
    """
    module, preprocess = create_backbone(backbone, load=False), preprocess_of(backbone)
    if holds_expert(file):
        expert = read_expert(file)
        expected = module.state_dict()
        check_same_tensors(expected, expert.state, expected="backbone", found=printable(str(file)))
    else:
        head = classifier_in(file, module)
        if head is None:
            raise UserError(
                f"{printable(str(file))}: an expert needs backbone.* and head.*, or a classifier "
                f"under one of the names {', '.join(CLASSIFIERS)}"
            )
        expert = Expert(Weights(weights_for(module, file)), head)
    check_classes(expert.head, task)
    check_features(expert.head, task, feature_dimension(module, preprocess))
    network = Network(module, preprocess, inference_device(accelerator), backbone)
    return Zoo(network, expert.state, {task.name: expert})


class Distillation(L.LightningModule):
    """KL(teacher ‖ student) at a temperature, on unlabeled images.

    Args:
        student: the backbone, trained; images N × 3 × S × S → features N × D.
        head: of the task, frozen.
        teacher_scores: of the teacher on the same images, N × C.
        preprocess: of the student.
        settings: of the optimisation.
    """

    def __init__(
        self,
        student: nn.Module,
        head: nn.Module,
        teacher_scores: Tensor,
        preprocess: Preprocess,
        settings: StudentSettings,
    ) -> None:
        super().__init__()
        # Neither running statistics nor dropout: a student differs from θ₀ in its weights alone,
        # and a continued distillation draws nothing that the killed one drew before.
        self.student = student.eval()
        self.head = head
        self.teacher_scores = teacher_scores
        self.preprocess = preprocess
        self.settings = settings
        self.labels = LabelsSettings(kind="soft", temperature=settings.temperature)

    def training_step(self, batch: UnlabeledBatch) -> Tensor:
        scores = self.head(self.student(self.preprocess.normalise(batch.images)))
        targets = self.teacher_scores[batch.indices.cpu()].to(scores)
        loss = distillation_loss(scores, targets, self.labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return adamw(self, self.settings)


def student_weights(
    zoo: Zoo,
    task: str,
    images: ImageSplit,
    teacher_scores: Tensor,
    settings: StudentSettings,
    *,
    cache: Cache,
    accelerator: str,
) -> Weights:
    """Weights of one task in the zoo's architecture, from θ₀ and a teacher's scores.

    They are made once and then read from the cache. A killed distillation continues from its last
    checkpoint, in whichever run needs it next, and ends at the same weights.

    Args:
        zoo: the target: its backbone, θ₀, and the task's frozen head.
        images: unlabeled images in the target's geometry; their labels are not read.
        teacher_scores: the teacher's scores on them, N × C.
    """
    key = key_of(
        [
            zoo.network.architecture,
            zoo.pretrained.sha256,
            state_sha256(zoo.experts[task].head.state_dict()),
            state_sha256({"scores": teacher_scores}),
            images.key,
            zoo.preprocess.key,
            settings.model_dump_json(),
        ]
    )
    checkpoint = cache.path("students", f"{key}.ckpt")

    def write(path: Path) -> None:
        student = zoo.network.fresh(zoo.pretrained)
        module = Distillation(
            student, zoo.experts[task].head, teacher_scores, zoo.preprocess, settings
        )
        _fit(module, task, images.images, checkpoint, accelerator)
        write_weights(path, student.state_dict())

    weights = Weights(cache.load("students", f"{key}.safetensors", write, FileTensors))
    with suppress(OSError):  # the cache may belong to another user
        forget(checkpoint)
    return weights


def _fit(
    module: Distillation, task: str, images: Images, checkpoint: Path, accelerator: str
) -> None:
    """Train the module's student, from the checkpoint if there is one."""
    settings = module.settings
    data = UnlabeledDataModule(
        {task: images},
        images_per_task=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
    )
    trainer = create_trainer(
        accelerator=accelerator,
        epochs=settings.steps // settings.steps_per_epoch,
        description=f"distilling {task}",
        checkpoint=checkpoint,
        clip=1.0,
    )
    trainer.fit(module, data, ckpt_path=continue_from(checkpoint), weights_only=True)


@dataclass(frozen=True)
class HeterogeneousExpert:
    """A task's expert of another architecture, the teacher of the one that is merged.

    Attributes:
        task: the expert's task.
        architecture: its label in the results.
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
        """The expert as the teacher on one split."""
        return Teacher(self.zoo, self.images.split(self.task, split))

    def test_accuracy(self, cache: Cache) -> TaskAccuracy:
        """Test accuracy of this expert, before its distillation."""
        weights = {self.task.name: self.zoo.experts[self.task.name].state}
        candidate = Candidate(f"{self.architecture}, the teacher", self.zoo, weights)
        return Scorer(self.images, cache).score(candidate).seen[self.task.name]


def check_names(settings: MergingSettings, suite: Suite) -> None:
    """Refuse experts of tasks that the suite does not merge.

    Raises:
        UserError: names them, and the tasks there are.
    """
    known = [task.name for task in suite.seen]
    unknown = [name for name in settings.heterogeneous.experts if name not in known]
    if unknown:
        raise UserError(
            f"heterogeneous.experts: {', '.join(unknown)} is no seen task of the suite; it has "
            f"{', '.join(known)}"
        )


def heterogeneous_experts(
    settings: MergingSettings, suite: Suite, cache: Cache
) -> dict[str, HeterogeneousExpert]:
    """Seen task → its expert of another architecture, read from its file or fine-tuned here.

    Raises:
        UserError: a file that cannot be read or does not fit.
        MergingError: tensors that do not match the expert's backbone, or NaN.
    """
    heterogeneous, accelerator = settings.heterogeneous, settings.accelerator
    experts = {}
    for task in suite.seen:
        if task.name not in heterogeneous.experts:
            continue
        expert = heterogeneous.experts[task.name]
        if expert.file is not None:
            zoo = single_expert_from_file(
                expert.backbone, expert.file, task, accelerator=accelerator
            )
        else:
            zoo = single_expert_finetuned(
                expert.backbone,
                heterogeneous.teachers,
                suite,
                task,
                cache=cache,
                accelerator=accelerator,
            )
        images = SuiteImages(suite, preprocess_of(expert.backbone), cache, settings.corruption)
        unlabeled = images.split(task, heterogeneous.distillation.images)
        experts[task.name] = HeterogeneousExpert(
            task, expert.backbone.label, zoo, images, len(_learned_from(settings, unlabeled))
        )
    return experts


def _learned_from(settings: MergingSettings, unlabeled: ImageSplit) -> ImageSplit:
    """The images of a distillation: nothing learns from those that choose hyper-parameters."""
    learning = settings.learning
    if learning.held_out and learning.split == settings.heterogeneous.distillation.images:
        return unlabeled.held_out(learning.held_out)[0]
    return unlabeled


def with_students(
    settings: MergingSettings,
    zoo: Zoo,
    images: SuiteImages,
    experts: Mapping[str, HeterogeneousExpert],
    cache: Cache,
) -> Zoo:
    """The zoo after every expert of another architecture was distilled into its own.

    Args:
        zoo: the target; these tasks have θ₀ there.
        images: the suite in the target's geometry.
    """
    distillation = settings.heterogeneous.distillation
    teachers = {}
    for name, expert in experts.items():
        teacher = expert.on(distillation.images)
        teachers[name] = replace(teacher, images=_learned_from(settings, teacher.images))
    scores = teacher_scores(teachers, cache)
    students = {
        name: student_weights(
            zoo,
            name,
            _learned_from(settings, images.split(expert.task, distillation.images)),
            scores[name],
            distillation,
            cache=cache,
            accelerator=settings.accelerator,
        )
        for name, expert in experts.items()
    }
    distilled = {name: Expert(state, zoo.experts[name].head) for name, state in students.items()}
    return replace(zoo, experts={**zoo.experts, **distilled})
