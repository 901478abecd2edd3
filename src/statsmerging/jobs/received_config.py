"""What the config of a received run may ask for: data and numbers, no code, loader or network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from statsmerging.jobs.schema import Config, describe, parse_config
from statsmerging.merging.learner import ANCHORED_START
from statsmerging.records.errors import printable, shown
from statsmerging.records.received import ReceivedError, is_plain_name
from statsmerging.runs.finished import FinishedRun
from statsmerging.zoo.settings import (
    HUB,
    PRETRAIN,
    BackboneSettings,
    FusionBenchZooSettings,
    ZeroShotHeadsSettings,
)

#: Jobs that write into their own run directory alone.
REPRODUCED = ("merge", "finetune", "distill", "evaluate", "check", "transfer")

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
# fmt: on


#: What methods did before it was a choice.
_METHODS = {
    "tsv_m": {"flatten_convolutions": True},
    "iso_c": {"flatten_convolutions": True},
    "iso_cts": {"flatten_convolutions": True},
    "wudi": {"all_tensors": True},
}


def received_config(run: FinishedRun, own: Config) -> tuple[Config, dict[str, Any]]:
    """The config of a received run as this command may run it, parsed and as it stands.

    Cache, loggers and plugins are those of this command.

    Raises:
        UserError: a value that is not valid, or one that needs the word of the user; the message
            says how to give it.
    """
    where = printable(str(run.path))
    values = {
        **_with_later_keys(run.config),
        "cache": own.cache,
        "logger": own.logger.model_dump(),
        "plugins": [str(file) for file in own.plugins] if run.config.get("plugins") else [],
        "rerun": False,
    }
    job = run.config.get("job")
    name = job.get("name") if isinstance(job, dict) else None
    if name not in REPRODUCED:
        raise ReceivedError(
            f"{where} is of job={shown(str(name))}; reproduced are {', '.join(REPRODUCED)}"
        )
    if run.config.get("plugins") and not own.plugins:
        raise ReceivedError(
            f"{where} was made with plugins, {shown(str(run.config['plugins']))}: their code runs "
            "only if this command names the files, plugins=[FILE.py]"
        )
    config = parse_config(values)
    for backbone in _backbones(config):
        check_backbone(backbone, own.backbone, where)
    for address in _addresses(config):
        if not all(map(is_plain_name, address.split("/"))) or Path(address).exists():
            raise ReceivedError(f"{where}: {shown(address)} is no address on the hub, OWNER/NAME")
    if not own.job.network and any(_downloads(config)):
        raise ReceivedError(
            f"{where} began with {' and '.join(_downloads(config))}, which may be downloaded: "
            "job.network=true allows it"
        )
    return config, values


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


def _with_later_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the keys of methods that its version did not have, at what held then."""
    learned = {
        "link": config.get("coefficients"),
        "anchor": _section(config, "merge").get("anchor"),
        "scale": _section(config, "learner").get("scale"),
        "start": ANCHORED_START,
    }
    methods = {
        name: {**(learned if "learner" in entry else _METHODS.get(name, {})), **entry}
        for name, entry in _section(config, "method").items()
        if isinstance(entry, dict)
    }
    return {**config, "method": {**_section(config, "method"), **methods}}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


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


def _backbones(config: Config) -> Iterator[BackboneSettings]:
    yield config.backbone
    for expert in config.heterogeneous.experts.values():
        yield expert.backbone


def _addresses(config: Config) -> Iterator[str]:
    """What is looked for on the hub; a library would take a local folder of that name."""
    if config.suite.root is None:
        for entry in config.suite.catalogue.values():
            yield entry.id
    if isinstance(config.zoo, FusionBenchZooSettings) and config.zoo.root is None:
        yield config.zoo.base
        yield config.zoo.expert.replace("{task}", "task")
        yield from config.zoo.names.values()


def _downloads(config: Config) -> Iterator[str]:
    """Weights that libraries fetch from wherever they want, which no setting of the hub stops."""
    if any(backbone.weights == HUB for backbone in _backbones(config)):
        yield f"backbone.weights={HUB}"
    if isinstance(config.heads, ZeroShotHeadsSettings) and config.heads.text == HUB:
        yield f"heads.text={HUB}"
