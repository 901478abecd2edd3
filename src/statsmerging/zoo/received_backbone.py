"""The backbone of a received run: it may tell the shape of a network, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from pydantic import ValidationError

from statsmerging.errors import printable, shown
from statsmerging.runs.finished import FinishedRun
from statsmerging.settings import describe
from statsmerging.store.received import ReceivedError, is_plain_name
from statsmerging.zoo.settings import (
    PRETRAIN,
    BackboneSettings,
)

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
