"""Backbones by name from timm and open_clip, without their classifiers."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from statsmerging.data.preprocess import Preprocess
from statsmerging.merging.task_vectors import check_same_tensors
from statsmerging.records.errors import UserError
from statsmerging.zoo.checkpoints import read_weights
from statsmerging.zoo.settings import HUB, BackboneSettings


def preprocess_of(settings: BackboneSettings) -> Preprocess:
    """The preprocessing the backbone's weights were trained with."""
    return Preprocess(settings.image_size, settings.mean, settings.std, settings.interpolation)


def create_backbone(settings: BackboneSettings) -> nn.Module:
    """The network of ``settings``: images N × 3 × S × S → features N × D.

    With a weight file or ``hub`` its weights are loaded (position embeddings are resampled to
    the image size); with ``pretrain`` they are freshly initialised.

    Raises:
        UserError: an unknown name, or a file that cannot be read.
        MergingError: weights that do not match the architecture (names tensors and shapes).
    """
    create = _create_timm if settings.library == "timm" else _create_open_clip
    backbone = create(settings)
    file = settings.weights_file
    if file is not None:
        load_pretrained(backbone, read_weights(file), found=str(file))
    return backbone


def load_pretrained(backbone: nn.Module, state: dict[str, Tensor], *, found: str) -> None:
    """Load published weights: drop the classifier, let the library adapt names and shapes."""
    # timm keeps each architecture's conversion of published weights beside the architecture.
    adapt = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    adapted = dict(adapt(state, backbone)) if adapt else state
    expected = backbone.state_dict()
    classifier = getattr(backbone, "default_cfg", {}).get("classifier", "head")
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {
        name: tensor
        for name, tensor in adapted.items()
        if name in expected or not name.startswith(names)
    }
    check_same_tensors(expected, kept, expected="backbone", found=found)
    backbone.load_state_dict(kept)


def feature_dimension(backbone: nn.Module, preprocess: Preprocess) -> int:
    """Width D of the backbone's output."""
    size = preprocess.image_size
    with torch.inference_mode():
        return int(backbone.eval()(torch.zeros(1, 3, size, size)).shape[-1])


def _create_timm(settings: BackboneSettings) -> nn.Module:
    import timm

    if not timm.is_model(settings.name):
        raise UserError(_unknown("timm", settings.name, timm.list_models()))
    name = f"{settings.name}.{settings.tag}" if settings.tag else settings.name
    return timm.create_model(
        name, pretrained=settings.weights == HUB, num_classes=0, **settings.arguments
    )


def _create_open_clip(settings: BackboneSettings) -> nn.Module:
    import open_clip

    if settings.name not in open_clip.list_models():
        raise UserError(_unknown("open_clip", settings.name, open_clip.list_models()))
    pretrained = settings.tag if settings.weights == HUB else None
    model = open_clip.create_model(settings.name, pretrained=pretrained, **settings.arguments)
    visual: nn.Module = model.visual
    return visual


def _unknown(library: str, name: str, available: list[str]) -> str:
    from difflib import get_close_matches

    by_lower_case = {other.lower(): other for other in available}
    close = get_close_matches(name.lower(), by_lower_case, n=5, cutoff=0.3)
    names = ", ".join(by_lower_case[other] for other in close)
    return f"backbone.name={name}: {library} has no such model; close names: {names}"
