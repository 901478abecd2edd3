"""Where classification heads come from: one interface, from a task to its head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from statsmerging.data.images import SuiteImages
from statsmerging.data.suites import Task
from statsmerging.errors import UserError, printable
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of
from statsmerging.zoo.heads import (
    PROBE_ITERATIONS,
    PROBE_STRENGTH,
    Head,
    fit_linear_probe,
    read_head,
)
from statsmerging.zoo.inference import extract_features
from statsmerging.zoo.settings import (
    BackboneSettings,
    FileHeadsSettings,
    HeadSettings,
    ZeroShotHeadsSettings,
)
from statsmerging.zoo.weights import Weights, write_weights
from statsmerging.zoo.zero_shot import ZeroShotHeads

HeadSource = Callable[[Task], Head]


class ProbedHeads:
    """Fits a linear probe on the pre-trained backbone's features of a task's training images.

    Args:
        backbone: the network.
        architecture: its ``architecture_key``.
        pretrained: its weights.
        images: the suite; train splits are opened.
        cache: of heads.
        device: where the forward passes run.
    """

    def __init__(
        self,
        backbone: nn.Module,
        architecture: str,
        pretrained: Weights,
        images: SuiteImages,
        cache: Cache,
        device: torch.device,
    ) -> None:
        self.backbone = backbone
        self.architecture = architecture
        self.pretrained = pretrained
        self.images = images
        self.cache = cache
        self.device = device

    def __call__(self, task: Task) -> Head:
        """The probe of one task, C × D."""
        train = self.images.split(task, "train")
        preprocess = self.images.preprocess

        def write(path: Path) -> None:
            features = extract_features(
                self.backbone,
                self.pretrained,
                train.images,
                preprocess,
                self.device,
                description=f"probing {task.name}",
            )
            head = fit_linear_probe(features, train.labels, len(task.classes))
            write_weights(path, head.state_dict())

        images = [preprocess.key, train.key]
        fit = [str(PROBE_STRENGTH), str(PROBE_ITERATIONS), str(len(task.classes))]
        key = key_of([self.architecture, self.pretrained.sha256, *images, *fit])
        return self.cache.load("heads", f"{key}.safetensors", write, read_head)


def head_source(
    settings: HeadSettings,
    own: HeadSource,
    backbone: BackboneSettings,
    *,
    probed: HeadSource,
    base: Path | None,
    cache: Cache,
) -> HeadSource:
    """The source that the config names.

    Args:
        own: gives the head that came with a task's expert.
        probed: fits a probe.
        base: file of the whole pre-trained CLIP, if the zoo brings one.
    """
    if isinstance(settings, ZeroShotHeadsSettings):
        return ZeroShotHeads(settings, backbone, base, cache)
    if isinstance(settings, FileHeadsSettings):
        root = settings.root
        return lambda task: read_head(
            first_file([root / f"{task.name}.safetensors", root / f"head_{task.name}.pt"])
        )
    return probed if settings.kind == "probed" else own


def first_file(candidates: Iterable[Path]) -> Path:
    """The first path that exists.

    Raises:
        UserError: none of them does.
    """
    paths = list(candidates)
    for path in paths:
        if path.exists():
            return path
    raise UserError(f"no such file: {printable(' or '.join(map(str, paths)))}")
