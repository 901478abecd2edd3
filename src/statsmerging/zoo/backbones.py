"""Backbones by name from timm and open_clip, without their classifiers."""

from __future__ import annotations

import torch
from torch import nn

from statsmerging.data.preprocess import Preprocess
from statsmerging.merging.functional import tied_names
from statsmerging.records.errors import UserError
from statsmerging.zoo.clip_models import create_clip, unknown_name
from statsmerging.zoo.foreign_weights import weights_for
from statsmerging.zoo.settings import HUB, BackboneSettings


def preprocess_of(settings: BackboneSettings) -> Preprocess:
    """The preprocessing the backbone's weights were trained with."""
    return Preprocess(settings.image_size, settings.mean, settings.std, settings.interpolation)


def create_backbone(settings: BackboneSettings, *, load: bool = True) -> nn.Module:
    """The network of ``settings``: images N × 3 × S × S → features N × D.

    With a weight file or ``hub`` its weights are loaded (position embeddings are resampled to
    the image size); with ``pretrain`` they are freshly initialised.

    Args:
        load: ``False`` for a network whose weights come from elsewhere.

    Raises:
        UserError: an unknown name, a network with tied weights, or a file that cannot be read.
        MergingError: weights that do not match the architecture (names tensors and shapes).
    """
    create = _create_timm if settings.library == "timm" else _create_open_clip
    backbone = create(settings, from_hub=load and settings.weights == HUB)
    twins = tied_names(backbone)
    if twins is not None:
        raise UserError(
            f"backbone.name={settings.name}: it ties {twins[0]} to {twins[1]}; networks with tied "
            "weights cannot be merged here, choose another one"
        )
    file = settings.weights_file
    if load and file is not None:
        backbone.load_state_dict(weights_for(backbone, file))
    return backbone


def feature_dimension(backbone: nn.Module, preprocess: Preprocess) -> int:
    """Width D of the backbone's output."""
    size = preprocess.image_size
    with torch.inference_mode():
        return int(backbone.eval()(torch.zeros(1, 3, size, size)).shape[-1])


def _create_timm(settings: BackboneSettings, *, from_hub: bool) -> nn.Module:
    import timm

    if not timm.is_model(settings.name):
        raise UserError(unknown_name("timm", settings.name, timm.list_models()))
    name = f"{settings.name}.{settings.tag}" if settings.tag else settings.name
    return timm.create_model(name, pretrained=from_hub, num_classes=0, **settings.arguments)


def _create_open_clip(settings: BackboneSettings, *, from_hub: bool) -> nn.Module:
    visual: nn.Module = create_clip(settings, from_hub=from_hub).visual
    return visual
