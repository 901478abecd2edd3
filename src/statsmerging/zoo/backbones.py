"""Backbones by name from timm and open_clip: architecture, weights and preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
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
from statsmerging.zoo.settings import HUB, PRETRAIN, BackboneSettings


def create_backbone(settings: BackboneSettings, *, load: bool = True) -> nn.Module:
    """The module of an architecture, without a classifier: images N × 3 × S × S → features N × D.

    Its weights come from a file or from the hub (position embeddings are resampled to the image
    size); with ``weights=pretrain`` they are random.

    Args:
        load: ``False`` leaves the weights random, for a caller who loads others.

    Raises:
        UserError: an unknown name, tied weights, or a file that cannot be read.
        MergingError: weights that do not match the architecture (names tensors and shapes).
    """
    from_hub = load and settings.weights == HUB
    if settings.library == "timm":
        import timm

        backbone: nn.Module = timm.create_model(
            _name_in_timm(settings), pretrained=from_hub, num_classes=0, **settings.arguments
        )
    else:
        backbone = create_clip(settings, from_hub=from_hub).visual
    twins = tied_names(backbone)
    if twins is not None:
        raise UserError(
            f"backbone.name={settings.name}: it ties {twins[0]} to {twins[1]}; networks with tied "
            "weights cannot be merged here, choose another one"
        )
    if load and settings.weights_file is not None:
        backbone.load_state_dict(weights_for(backbone, settings.weights_file))
    return backbone


def feature_dimension(backbone: nn.Module, preprocess: Preprocess) -> int:
    """Width D of the backbone's output."""
    size = preprocess.image_size
    with torch.inference_mode():
        return int(backbone.eval()(torch.zeros(1, 3, size, size)).shape[-1])


def preprocess_of(settings: BackboneSettings) -> Preprocess:
    """The preprocessing of the settings, where ``None`` is filled from the library's record.

    Raises:
        UserError: an unknown name or tag, or a recorded value that is not offered here.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(Preprocess)}
    if None not in values.values():
        return Preprocess(**values)
    recorded_by = _recorded_by_timm if settings.library == "timm" else _recorded_by_open_clip
    recorded = recorded_by(settings)
    values = {name: recorded[name] if value is None else value for name, value in values.items()}
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
    return Preprocess(**values)


def _recorded_by_timm(settings: BackboneSettings) -> dict[str, Any]:
    """The preprocessing of timm's own evaluation, of the default tag where none is named."""
    import timm
    from timm.data.config import resolve_data_config

    published = timm.get_pretrained_cfg(_name_in_timm(settings))
    # An architecture without published weights has no record; the whole shorter side is used.
    record = {"crop_pct": 1.0} if published is None else published.to_dict()
    config = resolve_data_config(pretrained_cfg=record)
    height, width = config["input_size"][1:]
    return {
        "image_size": height if height == width else f"{height} × {width}",
        "mean": config["mean"],
        "std": config["std"],
        "interpolation": config["interpolation"],
        "crop_ratio": config["crop_pct"],
        "crop_mode": config["crop_mode"],
    }


def _recorded_by_open_clip(settings: BackboneSettings) -> dict[str, Any]:
    """The preprocessing of open_clip's own evaluation; that of OpenAI where no tag is named."""
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    _check_known_to_open_clip(settings, tag=False)
    published = {}
    if settings.tag and open_clip.list_pretrained_tags_by_model(settings.name):
        _check_known_to_open_clip(settings, tag=True)
        published = open_clip.get_pretrained_cfg(settings.name, settings.tag)
    side = open_clip.get_model_config(settings.name)["vision_cfg"].get("image_size", 224)
    config = merge_preprocess_dict(PreprocessCfg(size=side), published)
    mode = config["resize_mode"]
    return {
        "image_size": config["size"],
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "interpolation": config["interpolation"],
        "crop_ratio": 1.0,
        "crop_mode": "center" if mode == "shortest" else mode,
    }


def _name_in_timm(settings: BackboneSettings) -> str:
    """Name and tag as timm joins them; both are checked."""
    import timm

    if not timm.is_model(settings.name):
        raise UserError(_unknown_name(settings, timm.list_models()))
    if not settings.tag:
        return settings.name
    name = f"{settings.name}.{settings.tag}"
    if not timm.models.is_model_pretrained(name):
        names = timm.list_pretrained(f"{settings.name}.*")
        raise UserError(_unknown_tag(settings, [known.split(".", 1)[1] for known in names]))
    return name


def create_clip(settings: BackboneSettings, *, from_hub: bool) -> Any:
    """The whole ``open_clip.CLIP`` of an architecture; its type depends on the name.

    Args:
        from_hub: with the published weights of ``tag``; otherwise with random weights.

    Raises:
        UserError: open_clip has no such model, or no such weights of it.
    """
    import open_clip

    _check_known_to_open_clip(settings, tag=from_hub)
    tag = settings.tag if from_hub else None
    with _without_logging():
        return open_clip.create_model(settings.name, pretrained=tag, **settings.arguments)


def clip_tokenizer(settings: BackboneSettings) -> Callable[[list[str]], Tensor]:
    """The tokenizer of an architecture: N texts → token numbers, N × context length."""
    import open_clip

    with _without_logging():
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(settings.name)
    return tokenizer


def _check_known_to_open_clip(settings: BackboneSettings, *, tag: bool) -> None:
    import open_clip

    if settings.name not in open_clip.list_models():
        raise UserError(_unknown_name(settings, open_clip.list_models()))
    tags = open_clip.list_pretrained_tags_by_model(settings.name)
    if tag and settings.tag and settings.tag not in tags:
        raise UserError(_unknown_tag(settings, tags))


def _unknown_name(settings: BackboneSettings, available: Sequence[str]) -> str:
    """The message for a name that the library does not have, with the closest names."""
    by_lower_case = {name.lower(): name for name in available}
    close = get_close_matches(settings.name.lower(), by_lower_case, n=5, cutoff=0.3)
    names = ", ".join(by_lower_case[name] for name in close)
    return (
        f"backbone.name={settings.name}: {settings.library} has no such model; close names: {names}"
    )


def _unknown_tag(settings: BackboneSettings, available: Sequence[str]) -> str:
    """The message for weights that the library does not have, with all that it has."""
    return (
        f"backbone.tag={settings.tag}: {settings.library} has no such weights of {settings.name}; "
        f"it has {', '.join(available) or 'none'}"
    )


@contextmanager
def _without_logging() -> Iterator[None]:
    # open_clip logs every step on the root logger, and warns that the weights are random.
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


#: Arguments of a library's constructor that only determine the network's shape. No file, address
#: or flag of a loader is among them.
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
# fmt: on


def received_backbone(run: FinishedRun, own: BackboneSettings) -> BackboneSettings:
    """The architecture of a received run, without its initial weights, which may be gone.

    Args:
        own: the backbone of this command; its arguments are allowed.

    Raises:
        ReceivedError: an invalid value, or an argument that the user has to allow.
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
    """Refuse values that a library could take for a file, an address or a flag of a loader.

    Args:
        backbone: the backbone of a received run.
        own: the backbone of this command; its arguments are allowed.
        where: the run's name in messages.

    Raises:
        ReceivedError: the message names the argument, and how to allow it.
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


def _is_shape(name: str, value: object, shapes: Set[str]) -> bool:
    """Whether an argument, and every key inside it, can only determine the network's shape."""
    if isinstance(value, Mapping):
        return name in shapes and all(_is_shape(key, value[key], shapes) for key in value)
    values = value if isinstance(value, list) else [value]
    return name in shapes and all(
        item is None
        or isinstance(item, bool | int | float)
        or (isinstance(item, str) and is_plain_name(item))
        for item in values
    )
