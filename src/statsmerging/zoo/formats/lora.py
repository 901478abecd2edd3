"""LoRA adapters as PEFT saves them, merged into the weights they adapt.

W' = W + s · B A, with s = α / r or α / √r (Hu et al., *LoRA*, ICLR 2022; Kalajdzievski, *A Rank
Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023); with a magnitude m for every output
W' = m · (W + s · B A) / ‖W + s · B A‖ (Liu et al., *DoRA*, ICML 2024). Keys of the config:
https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, linalg

from statsmerging.errors import UserError, printable, shown
from statsmerging.store.received import received_file, received_json
from statsmerging.zoo.weights import read_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

#: Keys that change what the merged weights are, and are followed.
_FOLLOWED = (
    "peft_type",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "init_lora_weights",
    "modules_to_save",
    "bias",
)
#: Keys that say where the adapter came from, how it was trained, or which layers it has.
_WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
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
_DOWN, _UP, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"

#: Comparisons of layers with patterns, which take about two seconds.
_COMPARISONS = 10**7


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
        config = received_json(folder, CONFIG)
        found = printable(str(folder / CONFIG))
        if not isinstance(config, dict):
            raise UserError(f"{found} is no mapping of settings")
        _check_config(config, found=found)
        tensors = {
            name.removeprefix(_PREFIX).replace(".base_layer.", "."): tensor
            for name, tensor in read_weights(received_file(folder, WEIGHTS)).items()
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
        scales = self._scales()
        for name, tensor in self.tensors.items():
            layer = name.removesuffix(_UP).removesuffix(_MAGNITUDE)
            if layer != name:
                _check_known(f"{layer}{_DOWN}", self.tensors, name)
                continue
            layer = name.removesuffix(_DOWN)
            target = name if layer == name else f"{layer}.weight"
            target = target.removeprefix(without)
            _check_known(target, merged, name)
            if layer != name:
                merged[target] = self._merged(layer, merged[target], scales[layer])
            elif tensor.shape == merged[target].shape:
                merged[target] = tensor.to(merged[target].dtype)
            else:
                raise UserError(_misfit(name, tensor, merged[target]))
        return merged

    def _merged(self, layer: str, weight: Tensor, scale: float) -> Tensor:
        """W' of a linear layer; of a convolution likewise, over its flat kernels."""
        _check_known(f"{layer}{_UP}", self.tensors, f"{layer}{_DOWN}")
        down, up = self.tensors[f"{layer}{_DOWN}"], self.tensors[f"{layer}{_UP}"]
        transposed = bool(self.config.get("fan_in_fan_out")) and weight.dim() == 2
        start = weight.T if transposed else weight
        if start.shape != (up.shape[0], *down.shape[1:]) or up.flatten(1).shape[1] != len(down):
            raise UserError(_misfit(f"{layer}{_DOWN}", down, weight))
        change = (up.flatten(1).float() @ down.flatten(1).float()) * scale
        if f"{layer}{_MAGNITUDE}" in self.tensors:
            magnitude = self.tensors[f"{layer}{_MAGNITUDE}"]
            if magnitude.numel() != len(start):
                raise UserError(_misfit(f"{layer}{_MAGNITUDE}", magnitude, weight))
            moved = start.flatten(1).float() + change
            norms = linalg.vector_norm(moved, dim=1, keepdim=True)
            merged: Tensor = moved * (magnitude.float().reshape(-1, 1) / norms)
            return (merged.T if transposed else merged.reshape(weight.shape)).to(weight.dtype)
        shaped = change.T if transposed else change.reshape(weight.shape)
        return weight + shaped.to(weight.dtype)

    def _scales(self) -> dict[str, float]:
        """s of every layer, whose rank has to be the one its config says."""
        ranks = {
            name.removesuffix(_DOWN): len(tensor)
            for name, tensor in self.tensors.items()
            if name.endswith(_DOWN)
        }
        expected = _by_layer(self.config, "rank_pattern", "r", ranks)
        alphas = _by_layer(self.config, "alpha_pattern", "lora_alpha", ranks)
        for layer, rank in ranks.items():
            if expected[layer] != rank:
                raise UserError(
                    f"adapter of {shown(layer)}: rank {rank}, its config says {expected[layer]}"
                )
        root = bool(self.config.get("use_rslora"))
        return {
            layer: float(alphas[layer]) / (math.sqrt(rank) if root else rank)
            for layer, rank in ranks.items()
        }


def _check_config(config: Mapping[str, Any], *, found: str) -> None:
    """Refuse what would change the merged weights in a way that is not followed here."""
    if config.get("peft_type") != "LORA":
        kind = shown(str(config.get("peft_type")))
        raise UserError(f"{found}: peft_type is {kind}, only LORA is read")
    if config.get("init_lora_weights", True) not in _PLAIN_BEGINNINGS:
        start = shown(str(config["init_lora_weights"]))
        raise UserError(f"{found}: init_lora_weights={start} changes the base weights")
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


def _by_layer(
    config: Mapping[str, Any], patterns: str, otherwise: str, layers: Collection[str]
) -> dict[str, Any]:
    """Per layer the value of the first pattern that matches the end of its name, as PEFT looks.

    Args:
        patterns: the key with the patterns.
        otherwise: the key with the value of all other layers.
    """
    # Arrow's expressions take time in proportion to the name; Python's may never end.
    import pyarrow as pa
    import pyarrow.compute as pc

    by_pattern = config.get(patterns) or {}
    if len(by_pattern) * len(layers) > _COMPARISONS:
        raise UserError(f"{patterns} has too many patterns: {len(by_pattern)}")
    names = pa.array(list(layers), pa.string())
    values = dict.fromkeys(layers, config[otherwise])
    for pattern, value in reversed(by_pattern.items()):
        try:
            matches = pc.match_substring_regex(names, pattern=rf"^(?:.*\.)?(?:{pattern})$")
        except ValueError as error:
            raise UserError(f"pattern {shown(pattern)} is no regular expression") from error
        values |= dict.fromkeys(names.filter(matches).to_pylist(), value)
    return values


def _check_known(name: str, state: Mapping[str, Tensor], found: str) -> None:
    if name not in state:
        raise UserError(f"adapter tensor {shown(found)} has no counterpart {shown(name)}")


def _misfit(name: str, tensor: Tensor, weight: Tensor) -> str:
    shapes = f"{tuple(tensor.shape)} does not fit {tuple(weight.shape)}"
    return f"adapter tensor {shown(name)}: {shapes}"
