"""LoRA adapters as PEFT saves them, merged into the weights they adapt.

W' = W + s · B A, with s = α / r or α / √r (Hu et al., *LoRA*, ICLR 2022; Kalajdzievski, *A Rank
Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023). Keys of the config:
https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from statsmerging.records.errors import UserError, shown
from statsmerging.records.files import read_json
from statsmerging.zoo.checkpoints import read_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

#: Keys that change what the merged weights are, and are followed.
_FOLLOWED = (
    "peft_type",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "fan_in_fan_out",
    "init_lora_weights",
    "modules_to_save",
    "bias",
)
#: Keys that say where the adapter came from, how it was trained, or which layers it has.
_WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
)
#: Ways to begin that leave the base weights as they are; others train against changed ones.
_PLAIN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes by layer, and tensors that replace those of the base.

    Attributes:
        config: the adapter's ``adapter_config.json``.
        tensors: by name, without PEFT's prefix.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

        Raises:
            UserError: a missing or broken file, or a config key that is not understood.
        """
        try:
            config = read_json(folder / CONFIG)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{folder}/{CONFIG}: missing or no JSON") from error
        if not isinstance(config, dict):
            raise UserError(f"{folder}/{CONFIG} is no mapping of settings")
        _check_config(config, found=f"{folder}/{CONFIG}")
        tensors = {
            name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor
            for name, tensor in read_weights(folder / WEIGHTS).items()
        }
        return cls(config, tensors)

    def merge_into(self, base: Mapping[str, Tensor], *, without: str = "") -> dict[str, Tensor]:
        """The base's state dict with every change of the adapter in it.

        Args:
            base: weights by tensor name.
            without: prefix of the adapter's names that the base's names lack.

        Raises:
            UserError: a tensor that has no counterpart in the base, or not its shape.
        """
        merged = dict(base)
        for name, tensor in self.tensors.items():
            if name.endswith(_UP):
                _check_known(f"{name.removesuffix(_UP)}{_DOWN}", self.tensors, name)
                continue
            layer = name.removesuffix(_DOWN)
            target = name if layer == name else f"{layer}.weight"
            target = target.removeprefix(without)
            _check_known(target, merged, name)
            if layer != name:
                merged[target] = merged[target] + self._change(layer, merged[target])
            elif tensor.shape == merged[target].shape:
                merged[target] = tensor.to(merged[target].dtype)
            else:
                raise UserError(_misfit(name, tensor, merged[target]))
        return merged

    def _change(self, layer: str, weight: Tensor) -> Tensor:
        """ΔW = s · B A in the shape of W; of a convolution likewise, over its flat kernels."""
        _check_known(f"{layer}{_UP}", self.tensors, f"{layer}{_DOWN}")
        down, up = self.tensors[f"{layer}{_DOWN}"], self.tensors[f"{layer}{_UP}"]
        transposed = bool(self.config.get("fan_in_fan_out")) and weight.dim() == 2
        expected = weight.T if transposed else weight
        if expected.shape != (up.shape[0], *down.shape[1:]) or up.flatten(1).shape[1] != len(down):
            raise UserError(_misfit(f"{layer}{_DOWN}", down, weight))
        change = (up.flatten(1).float() @ down.flatten(1).float()) * self._scale(layer, len(down))
        shaped = change.T if transposed else change.reshape(weight.shape)
        return shaped.to(weight.dtype)

    def _scale(self, layer: str, rank: int) -> float:
        expected = _of_layer(self.config.get("rank_pattern"), layer, self.config["r"])
        if expected != rank:
            raise UserError(f"adapter of {shown(layer)}: rank {rank}, its config says {expected}")
        alpha = _of_layer(self.config.get("alpha_pattern"), layer, self.config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def _check_config(config: Mapping[str, Any], *, found: str) -> None:
    """Refuse what would change the merged weights in a way that is not followed here."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{found}: peft_type is {config.get('peft_type')!r}, only LORA is read")
    if config.get("init_lora_weights", True) not in _PLAIN_BEGINNINGS:
        raise UserError(
            f"{found}: init_lora_weights={config['init_lora_weights']!r} changes the base weights"
        )
    for key, value in config.items():
        # A feature that is switched off changes nothing, whatever it is.
        if value and key not in (*_FOLLOWED, *_WITHOUT_EFFECT):
            raise UserError(f"{found}: {shown(key)} is not supported")
    for number, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        by_layer = config.get(pattern) or {}
        if not isinstance(by_layer, dict):
            raise UserError(f"{found}: {pattern} is no mapping")
        if not all(_is_positive(value) for value in (config.get(number), *by_layer.values())):
            raise UserError(f"{found}: {number} or a value of {pattern} is no positive number")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _of_layer(patterns: Mapping[str, Any] | None, layer: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the end of the layer's name, as PEFT looks."""
    for pattern, value in (patterns or {}).items():
        try:
            matches = re.fullmatch(rf"(.*\.)?({pattern})", layer)
        except re.error as error:
            raise UserError(f"pattern {shown(pattern)} is no regular expression") from error
        if matches:
            return value
    return otherwise


def _check_known(name: str, state: Mapping[str, Tensor], found: str) -> None:
    if name not in state:
        raise UserError(f"adapter tensor {shown(found)} has no counterpart {shown(name)}")


def _misfit(name: str, tensor: Tensor, weight: Tensor) -> str:
    shapes = f"{tuple(tensor.shape)} does not fit {tuple(weight.shape)}"
    return f"adapter tensor {shown(name)}: {shapes}"
