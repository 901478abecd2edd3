"""Where classification heads come from: experts, linear probes, files, class names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statsmerging.data.images import SuiteImages
from statsmerging.data.suites import Task
from statsmerging.errors import UserError, printable
from statsmerging.merging.state_dicts import check_same_tensors
from statsmerging.progress import track
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import json_sha256, key_of
from statsmerging.zoo.backbones import clip_tokenizer, create_clip
from statsmerging.zoo.formats.checkpoints import read_file, without_wrapper, wrapper_of
from statsmerging.zoo.formats.clip_names import WHOLE_CLIP, whole_clip
from statsmerging.zoo.heads import (
    PROBE_ITERATIONS,
    PROBE_STRENGTH,
    Head,
    fit_linear_probe,
    read_head,
)
from statsmerging.zoo.network import Network
from statsmerging.zoo.settings import (
    BASE,
    HUB,
    BackboneSettings,
    FileHeadsSettings,
    HeadsSettings,
    ZeroShotHeadsSettings,
)
from statsmerging.zoo.weights import Weights, write_weights

HeadSource = Callable[[Task], Head]


class ProbedHeads:
    """Linear probes on the pre-trained backbone's features of a task's training images.

    Args:
        network: the backbone.
        pretrained: θ₀ by tensor name.
        images: the suite; its train splits are opened.
        cache: keeps the heads.
    """

    def __init__(
        self, network: Network, pretrained: Weights, images: SuiteImages, cache: Cache
    ) -> None:
        self.network = network
        self.pretrained = pretrained
        self.images = images
        self.cache = cache

    def __call__(self, task: Task) -> Head:
        """The probe of one task, C × D."""

        def write(path: Path) -> None:
            train = self.images.split(task, "train")
            features = self.network.features(
                self.pretrained, train.images, description=f"probing {task.name}"
            )
            head = fit_linear_probe(features, train.labels, len(task.classes))
            write_weights(path, head.state_dict())

        images = [self.images.preprocess.key, self.images.key(task, "train")]
        fit = [str(PROBE_STRENGTH), str(PROBE_ITERATIONS), str(len(task.classes))]
        key = key_of([self.network.architecture, self.pretrained.sha256, *images, *fit])
        return self.cache.load("heads", f"{key}.safetensors", write, read_head)


def head_source(
    settings: HeadsSettings,
    own: HeadSource,
    backbone: BackboneSettings,
    *,
    probed: HeadSource,
    base: Path | None,
    cache: Cache,
) -> HeadSource:
    """The source of the config's choice.

    Args:
        own: the source of the heads that came with the experts.
        probed: the source of linear probes.
        base: file of the whole pre-trained CLIP, if the zoo has one.
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


class ZeroShotHeads:
    """Zero-shot heads: class names and prompts through CLIP's text tower.

    Args:
        settings: prompts and class names.
        backbone: the open_clip model whose image tower is merged.
        base: file of the whole pre-trained CLIP, for ``text: base``.
        cache: keeps the heads.

    Raises:
        UserError: a backbone without a text tower, or ``text: base`` without such a file.
    """

    def __init__(
        self,
        settings: ZeroShotHeadsSettings,
        backbone: BackboneSettings,
        base: Path | None,
        cache: Cache,
    ) -> None:
        if backbone.library != "open_clip":
            raise UserError(
                f"heads=zero_shot needs a backbone of open_clip, {backbone.label} is of "
                f"{backbone.library}"
            )
        if settings.text == BASE and base is None:
            raise UserError("heads.text=base: this zoo brings no CLIP; give heads.text=hub or FILE")
        self.settings = settings
        self.backbone = backbone
        self.cache = cache
        self.file = {BASE: base, HUB: None}.get(settings.text, Path(settings.text))

    def __call__(self, task: Task) -> Head:
        """The head of one task, C × D, on features of unit length."""
        classes = self.settings.class_names.get(task.name, list(task.classes))
        if len(classes) != len(task.classes):
            raise UserError(
                f"heads.class_names.{task.name}: {len(classes)} names, the data set has "
                f"{len(task.classes)} classes"
            )
        templates = self.settings.templates.get(task.name, self.settings.templates["default"])
        words = [name.replace("_", " ") for name in classes]

        def write(path: Path) -> None:
            tokenize = clip_tokenizer(self.backbone)
            head = zero_shot_head(self._clip, tokenize, words, templates, description=task.name)
            write_weights(path, head.state_dict())

        weights = self.backbone.tag or "" if self.file is None else self._weights.sha256
        text_tower = json_sha256([self.backbone.architecture, weights])
        key = key_of([text_tower, json_sha256([words, templates])])
        return self.cache.load("heads", f"{key}.safetensors", write, read_head)

    @cached_property
    def _weights(self) -> Weights:
        return Weights(read_file(self.file).tensors) if self.file else Weights({})

    @cached_property
    def _clip(self) -> Any:
        clip = create_clip(self.backbone, from_hub=self.file is None)
        if self.file is not None:
            wrapper = wrapper_of(self._weights, WHOLE_CLIP)
            state = whole_clip(without_wrapper(self._weights, wrapper))
            found = printable(str(self.file))
            check_same_tensors(clip.state_dict(), state, expected="CLIP", found=found)
            clip.load_state_dict(state)
        return clip.eval()


@torch.inference_mode()
def zero_shot_head(
    clip: Any,
    tokenize: Callable[[list[str]], Tensor],
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    description: str,
) -> Head:
    """One row per class: the mean direction of its prompts' features, times CLIP's logit scale.

    Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, ICML
    2021, section 3.1.

    Args:
        clip: ``open_clip.CLIP``.
        tokenize: N texts → token numbers, N × context length.
        classes: C names, in the words of a prompt.
        templates: prompts with ``{}`` for the class.
        description: shown beside the progress bar.
    """
    rows = []
    for name in track(classes, f"prompts of {description}", total=len(classes)):
        tokens = tokenize([template.format(name) for template in templates])
        directions = nn.functional.normalize(clip.encode_text(tokens), dim=-1)
        rows.append(nn.functional.normalize(directions.mean(0), dim=0))
    weight = clip.logit_scale.exp() * torch.stack(rows)
    return Head(weight.float(), torch.zeros(len(rows)), normalises=True)
