"""Backbones by name from timm and open_clip: architecture, weights and preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, get_args

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from statsmerging.choices import CropMode, Interpolation
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError, printable, shown
from statsmerging.merging.merged_model import tied_names
from statsmerging.runs.finished import FinishedRun
from statsmerging.settings import describe
from statsmerging.store.received import ReceivedError, is_plain_name
from statsmerging.zoo.formats.foreign import weights_for
from statsmerging.zoo.settings import (
    HUB,
    PRETRAIN,
    BackboneSettings,
)


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


def create_clip(settings: BackboneSettings, *, from_hub: bool) -> Any:
    """The whole CLIP that the settings name.

    Args:
        from_hub: with the published weights ``tag``; otherwise freshly initialised.

    Raises:
        UserError: open_clip has no such model, or no such weights of it.
    """
    import open_clip

    _check_name(settings)
    if from_hub:
        _check_tag(settings)
    tag = settings.tag if from_hub else None
    with _quiet():
        return open_clip.create_model(settings.name, pretrained=tag, **settings.arguments)


def own_preprocessing(settings: BackboneSettings) -> dict[str, Any]:
    """How open_clip makes an image the input of the weights ``tag``: size, mean, std and so on.

    Raises:
        UserError: open_clip has no such model, or no such weights of it.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    _check_name(settings)
    published = {}
    if settings.tag and open_clip.list_pretrained_tags_by_model(settings.name):
        _check_tag(settings)
        published = open_clip.get_pretrained_cfg(settings.name, settings.tag)
    side = open_clip.get_model_config(settings.name)["vision_cfg"].get("image_size", 224)
    own: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(size=side), published)
    return own


def _check_name(settings: BackboneSettings) -> None:
    import open_clip

    if settings.name not in open_clip.list_models():
        raise UserError(unknown_name("open_clip", settings.name, open_clip.list_models()))


def _check_tag(settings: BackboneSettings) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(settings.name)
    if settings.tag and settings.tag not in tags:
        raise UserError(unknown_tag(settings, tags))


def clip_tokenizer(settings: BackboneSettings) -> Callable[[list[str]], Tensor]:
    """Texts → token numbers, N × context length."""
    import open_clip

    with _quiet():
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(settings.name)
    return tokenizer


def unknown_name(library: str, name: str, available: list[str]) -> str:
    """The message for a name that the library does not know, with close ones."""
    by_lower_case = {other.lower(): other for other in available}
    close = get_close_matches(name.lower(), by_lower_case, n=5, cutoff=0.3)
    names = ", ".join(by_lower_case[other] for other in close)
    return f"backbone.name={name}: {library} has no such model; close names: {names}"


def unknown_tag(settings: BackboneSettings, available: list[str]) -> str:
    """The message for weights that the library does not know, with those that it knows."""
    return (
        f"backbone.tag={settings.tag}: {settings.library} has no such weights of {settings.name}; "
        f"it has {', '.join(available) or 'none'}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip reports every step on the root logger, and that weights are still random.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


#: Arguments of a library's constructor that only tell the shape of the network; no file, address or
#: flag of a loader is among them.
# fmt: off
SHAPES = {
    "timm": {
        "img_size", "in_chans", "patch_size", "window_size", "kernel_size", "kernel_sizes",
        "embed_dim", "embed_dims", "depth", "depths", "dims", "num_heads", "mlp_ratio",
        "layers", "channels", "cardinality", "base_width", "output_stride",
        "stem_width", "stem_type", "avg_down", "conv_mlp", "head_init_scale",
        "act_layer", "norm_layer", "pad_type", "qkv_bias", "qk_norm", "init_values",
        "ls_init_value", "class_token", "reg_tokens", "pos_embed", "no_embed_class",
        "pre_norm", "final_norm", "fc_norm", "dynamic_img_size", "global_pool",
    },
    "open_clip": {
        "embed_dim", "quick_gelu", "force_quick_gelu", "force_image_size", "vision_cfg", "text_cfg",
        "image_size", "patch_size", "layers", "width", "heads", "head_width", "mlp_ratio",
        "ls_init_value", "no_ln_pre", "final_ln_after_pool", "pos_embed_type", "pool_type",
        "attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "context_length",
        "vocab_size", "embed_cls", "pad_id", "eos_id", "no_causal_mask", "proj_bias", "proj_type",
    },
}


def received_backbone(run: FinishedRun, own: BackboneSettings) -> BackboneSettings:
    """The architecture of a received run; the weights it began with may be gone.

    Raises:
        UserError: a value that is not valid, or an argument that needs the word of the user.
    """
    section = run.manifest["config"].get("backbone")
    where = printable(str(run.path))
    if not isinstance(section, dict):
        raise ReceivedError(f"{where} has no backbone in its manifest")
    try:
        backbone = BackboneSettings.model_validate({**section, "weights": PRETRAIN})
    except ValidationError as error:
        raise ReceivedError(f"{where}: {describe(error, 'backbone.')}") from error
    check_backbone(backbone, own, where)
    return backbone


def check_backbone(backbone: BackboneSettings, own: BackboneSettings, where: str) -> None:
    """Refuse what a library could take for a file, an address or a flag of a loader.

    Args:
        backbone: of a received run.
        own: of this command: what it says itself is allowed.
        where: names the run.

    Raises:
        ReceivedError: names the argument, and how to allow it.
    """
    if backbone.tag is not None and not is_plain_name(backbone.tag):
        raise ReceivedError(f"{where}: backbone.tag={shown(backbone.tag)} is no plain name")
    for name, value in backbone.arguments.items():
        allowed = name in own.arguments and own.arguments[name] == value
        if not allowed and not _is_shape(name, value, SHAPES[backbone.library]):
            raise ReceivedError(
                f"{where}: backbone.arguments.{printable(name)}={shown(str(value))} may be more "
                "than the network's shape; the same argument on this command line, "
                "+backbone.arguments.NAME=VALUE, allows it"
            )


def _is_shape(name: str, value: Any, shapes: Set[str]) -> bool:
    if isinstance(value, Mapping):
        return name in shapes and all(_is_shape(key, value[key], shapes) for key in value)
    values = value if isinstance(value, list) else [value]
    return name in shapes and all(
        item is None
        or isinstance(item, bool | int | float)
        or (isinstance(item, str) and is_plain_name(item))
        for item in values
    )
