"""A zoo made on the spot: pre-training where asked for, then one fine-tuning per task."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from statsmerging.data.image_cache import SuiteImages, load_split
from statsmerging.data.suites import Task
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import json_sha256, key_of, state_sha256
from statsmerging.zoo.backbones import create_backbone, feature_dimension
from statsmerging.zoo.checkpoints import read_weights, write_weights
from statsmerging.zoo.experts import Expert, Zoo, copy_state, read_expert, write_expert
from statsmerging.zoo.heads import fit_linear_probe
from statsmerging.zoo.inference import extract_features, inference_device
from statsmerging.zoo.settings import PRETRAIN, BackboneSettings, TrainingSettings
from statsmerging.zoo.training import train_supervised


def finetuned_zoo(
    settings: BackboneSettings,
    images: SuiteImages,
    *,
    pretraining: TrainingSettings,
    finetuning: TrainingSettings,
    cache: Cache,
    accelerator: str,
) -> Zoo:
    """An expert for every task of the suite, each fine-tuned once and then read from the cache.

    Args:
        settings: the backbone.
        images: the suite; only train splits are opened.
        pretraining: used with ``weights="pretrain"``.
        finetuning: of each expert.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
    """
    if settings.weights == PRETRAIN:
        backbone = _pretrained_here(settings, images, pretraining, cache, accelerator)
    else:
        backbone = create_backbone(settings)
    maker = _ExpertMaker(backbone, images, finetuning, cache, accelerator)
    experts = {task.name: maker.make(task) for task in images.suite.tasks}
    device = inference_device(accelerator)
    return Zoo(backbone, images.preprocess, maker.pretrained, experts, device)


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
    backbone.load_state_dict(read_weights(cache.file("backbones", f"{key}.safetensors", write)))
    return backbone


class _ExpertMaker:
    """Linear probe, frozen as the head; then the backbone is fine-tuned under it."""

    def __init__(
        self,
        backbone: nn.Module,
        images: SuiteImages,
        training: TrainingSettings,
        cache: Cache,
        accelerator: str,
    ) -> None:
        self.backbone = backbone
        self.pretrained = copy_state(backbone)
        self.images = images
        self.training = training
        self.cache = cache
        self.accelerator = accelerator
        self.pretrained_hash = state_sha256(self.pretrained)

    def make(self, task: Task) -> Expert:
        """The expert of one task, from the cache if these settings made it before."""
        train = self.images.split(task, "train")
        preprocess = self.images.preprocess

        def write(path: Path) -> None:
            features = extract_features(
                self.backbone,
                self.pretrained,
                train.images,
                preprocess,
                inference_device(self.accelerator),
                description=f"probing {task.name}",
            )
            head = fit_linear_probe(features, train.labels, len(task.classes))
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
            write_expert(path, Expert(self.backbone.state_dict(), head))

        key = key_of(
            [self.pretrained_hash, preprocess.key, train.key, self.training.model_dump_json()]
        )
        return read_expert(self.cache.file("experts", f"{key}.safetensors", write))
