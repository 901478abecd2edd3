"""One task's expert in an architecture of its own: fine-tuned here, or read from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from statsmerging.data.image_cache import SuiteImages
from statsmerging.data.suites import Suite, Task
from statsmerging.merging.task_vectors import check_same_tensors
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError, printable
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.experts import Expert, Zoo, holds_expert, read_expert
from statsmerging.zoo.finetuned import finetuned_zoo
from statsmerging.zoo.foreign_weights import classifier_in, weights_for
from statsmerging.zoo.formats.foreign import CLASSIFIERS
from statsmerging.zoo.heads import check_classes, check_features
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.settings import BackboneSettings, FinetunedZooSettings, OwnHeadsSettings
from statsmerging.zoo.weights import Weights


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
    """A zoo of one expert from a file; what it started from is not known, so θ₀ is itself.

    Args:
        file: what ``write_expert`` wrote, or published weights with their classifier.

    Raises:
        UserError: a file that cannot be read, no head in it, or one of another number of classes.
        MergingError: tensors that do not match the backbone (names and both shapes), or NaN.
    """
    network = create_backbone(backbone, load=False)
    if holds_expert(file):
        expert = read_expert(file)
        expected = network.state_dict()
        check_same_tensors(expected, expert.state, expected="backbone", found=printable(str(file)))
    else:
        head = classifier_in(file, network)
        if head is None:
            raise UserError(
                f"{printable(str(file))}: an expert needs backbone.* and head.*, or a classifier "
                f"under one of the names {', '.join(CLASSIFIERS)}"
            )
        expert = Expert(Weights(weights_for(network, file)), head)
    check_classes(expert.head, task)
    check_features(expert.head, task, feature_dimension(network, preprocess_of(backbone)))
    device = inference_device(accelerator)
    experts = {task.name: expert}
    return Zoo(network, preprocess_of(backbone), expert.state, experts, device, backbone)
