"""A zoo made on the spot: pre-training where asked for, then one fine-tuning per task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from statsmerging.data.image_cache import SuiteImages, load_split
from statsmerging.data.suites import Task
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import json_sha256, key_of, state_sha256
from statsmerging.zoo.architecture import architecture_key
from statsmerging.zoo.backbones import create_backbone, feature_dimension
from statsmerging.zoo.checkpoints import read_weights, write_weights
from statsmerging.zoo.experts import Expert, Zoo, copy_state, read_expert, write_expert
from statsmerging.zoo.head_sources import HeadSource, ProbedHeads, head_source
from statsmerging.zoo.heads import check_tells_apart
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.settings import (
    PRETRAIN,
    BackboneSettings,
    FinetunedZooSettings,
    HeadSettings,
    TrainingSettings,
)
from statsmerging.zoo.training import train_supervised
from statsmerging.zoo.weights import Weights


def finetuned_zoo(
    settings: BackboneSettings,
    zoo: FinetunedZooSettings,
    heads: HeadSettings,
    images: SuiteImages,
    *,
    cache: Cache,
    accelerator: str,
    untrained: Collection[str] = (),
) -> Zoo:
    """An expert for every task of the suite, each fine-tuned once and then read from the cache.

    Args:
        settings: the backbone.
        zoo: how the backbone is pre-trained (``weights="pretrain"``) and the experts fine-tuned.
        heads: under which head the backbone is fine-tuned; an expert's own one is a linear probe.
        images: the suite; only train splits are opened.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        untrained: tasks whose expert stays at θ₀ under its head, for others to train.
    """
    if settings.weights == PRETRAIN:
        backbone = _pretrained_here(settings, images, zoo.pretraining, cache, accelerator)
    else:
        backbone = create_backbone(settings)
    for task in images.suite.tasks:
        check_tells_apart(task)
    device = inference_device(accelerator)
    pretrained = copy_state(backbone)
    architecture = architecture_key(backbone, settings)
    probed = ProbedHeads(backbone, architecture, pretrained, images, cache, device)
    source = head_source(heads, probed, settings, probed=probed, base=None, cache=cache)
    maker = _ExpertMaker(
        backbone, architecture, pretrained, source, images, zoo.finetuning, cache, accelerator
    )
    experts = {
        task.name: Expert(pretrained, source(task)) if task.name in untrained else maker.make(task)
        for task in images.suite.tasks
    }
    return Zoo(backbone, images.preprocess, pretrained, experts, device, settings)


def _pretrained_here(
    settings: BackboneSettings,
    images: SuiteImages,
    training: TrainingSettings,
    cache: Cache,
    accelerator: str,
) -> nn.Module:
    """The backbone after supervised pre-training on the suite's generic images."""
    source = images.suite.pretraining
    if source is None:
        raise UserError(
            f"backbone.weights={PRETRAIN}: the suite {images.suite.name} has no images for "
            "pre-training; give a .safetensors file or `hub`"
        )
    split = load_split(source, images.preprocess, cache, name="pre-training")

    def write(path: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            fresh = create_backbone(settings)
            width = feature_dimension(fresh, images.preprocess)
            head = nn.Linear(width, int(split.labels.max()) + 1)
        train_supervised(
            fresh,
            head,
            split,
            images.preprocess,
            training,
            accelerator=accelerator,
            description="pre-training",
            fixed_statistics=False,
        )
        write_weights(path, fresh.state_dict())

    key = key_of(
        [
            json_sha256(settings.architecture),
            images.preprocess.key,
            split.key,
            training.model_dump_json(),
        ]
    )
    backbone = create_backbone(settings)
    backbone.load_state_dict(cache.load("backbones", f"{key}.safetensors", write, read_weights))
    return backbone


@dataclass(frozen=True)
class _ExpertMaker:
    """Fine-tunes the backbone for a task, under a head that stays as it is."""

    backbone: nn.Module
    architecture: str
    pretrained: Weights
    heads: HeadSource
    images: SuiteImages
    training: TrainingSettings
    cache: Cache
    accelerator: str

    def make(self, task: Task) -> Expert:
        """The expert of one task, from the cache if these settings made it before."""
        train = self.images.split(task, "train")
        preprocess = self.images.preprocess
        parts = [
            self.architecture,
            self.pretrained.sha256,
            preprocess.key,
            train.key,
            str(len(task.classes)),
            self.training.model_dump_json(),
        ]
        if not isinstance(self.heads, ProbedHeads):  # a probe follows from the other parts
            parts.append(state_sha256(self.heads(task).state_dict()))

        def write(path: Path) -> None:
            head = self.heads(task)
            self.backbone.load_state_dict(self.pretrained)
            train_supervised(
                self.backbone,
                head,
                train,
                preprocess,
                self.training,
                accelerator=self.accelerator,
                description=f"fine-tuning {task.name}",
            )
            write_expert(path, Expert(Weights(self.backbone.state_dict()), head))

        return self.cache.load("experts", f"{key_of(parts)}.safetensors", write, read_expert)
