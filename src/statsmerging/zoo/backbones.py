"""Backbones by name from timm and open_clip, without their classifiers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import torch
from torch import nn

from statsmerging.choices import CropMode, Interpolation
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.merging.merged_model import tied_names
from statsmerging.zoo.foreign_weights import weights_for
from statsmerging.zoo.settings import HUB, BackboneSettings
from statsmerging.zoo.zero_shot import create_clip, own_preprocessing, unknown_name, unknown_tag


def preprocess_of(settings: BackboneSettings) -> Preprocess:
    """The preprocessing of the settings; what they leave open is the checkpoint's own.

    Raises:
        UserError: an unknown name or tag, or a preprocessing of its own that is not offered.
    """
    wanted = {field.name: getattr(settings, field.name) for field in fields(Preprocess)}
    if None in wanted.values():
        own_of = _own_of_timm if settings.library == "timm" else _own_of_open_clip
        own = own_of(settings)
        wanted = {name: own[name] if value is None else value for name, value in wanted.items()}
        _check_offered(wanted)
    return Preprocess(**wanted)


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

    name = _name_in_timm(settings)
    return timm.create_model(name, pretrained=from_hub, num_classes=0, **settings.arguments)


def _create_open_clip(settings: BackboneSettings, *, from_hub: bool) -> nn.Module:
    visual: nn.Module = create_clip(settings, from_hub=from_hub).visual
    return visual


def _name_in_timm(settings: BackboneSettings) -> str:
    import timm

    if not timm.is_model(settings.name):
        raise UserError(unknown_name("timm", settings.name, timm.list_models()))
    if not settings.tag:
        return settings.name
    name = f"{settings.name}.{settings.tag}"
    if not timm.models.is_model_pretrained(name):
        names = timm.list_pretrained(f"{settings.name}.*")
        raise UserError(unknown_tag(settings, [known.split(".", 1)[1] for known in names]))
    return name


def _own_of_timm(settings: BackboneSettings) -> dict[str, Any]:
    """What timm evaluates the checkpoint with: that of its default tag, where none is named."""
    import timm
    from timm.data.config import resolve_data_config

    published = timm.get_pretrained_cfg(_name_in_timm(settings))
    # An architecture without published weights has none: the whole shorter side, then.
    known = {"crop_pct": 1.0} if published is None else published.to_dict()
    own = resolve_data_config(pretrained_cfg=known)
    height, width = own["input_size"][1:]
    return {
        "image_size": height if height == width else f"{height} × {width}",
        "mean": own["mean"],
        "std": own["std"],
        "interpolation": own["interpolation"],
        "crop_ratio": own["crop_pct"],
        "crop_mode": own["crop_mode"],
    }


def _own_of_open_clip(settings: BackboneSettings) -> dict[str, Any]:
    """What open_clip evaluates the checkpoint with: OpenAI's, where no tag is named."""
    own = own_preprocessing(settings)
    return {
        "image_size": own["size"],
        "mean": tuple(own["mean"]),
        "std": tuple(own["std"]),
        "interpolation": own["interpolation"],
        "crop_ratio": 1.0,
        "crop_mode": "center" if own["resize_mode"] == "shortest" else own["resize_mode"],
    }


def _check_offered(values: dict[str, Any]) -> None:
    """Refuse what a checkpoint brings and nothing here does."""
    offered = {"interpolation": get_args(Interpolation), "crop_mode": get_args(CropMode)}
    for name, choices in offered.items():
        if values[name] not in choices:
            raise UserError(
                f"backbone.{name}: the checkpoint's own is {values[name]}; choose "
                f"{' or '.join(choices)}"
            )
    if not isinstance(values["image_size"], int):
        raise UserError(
            f"backbone.image_size: the checkpoint's own is {values['image_size']}; choose the side "
            "of a square"
        )
