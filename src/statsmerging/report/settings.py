"""What configs of runs say: in what they differ, and what may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from statsmerging.report.rows import BOUNDS
from statsmerging.runs.directory import PRESENTATION

#: Runs that differ in one of these answer different questions; other keys tell settings apart.
QUESTION = ("job.name", "suite.name", "backbone.label")

#: Beginnings of keys that tell images and experts; runs that differ in one score something else.
PROBLEM = (
    "suite.",
    "corruption.",
    "zoo.",
    "backbone.",
    "heads.",
    "heterogeneous.experts.",
    "heterogeneous.teachers.",
    "heterogeneous.distillation.",
)

#: Keys that tell on what a run computes and what it computes besides: the same numbers, up to the
#: rounding of sums in another order.
INDIFFERENT = ("threads", "accelerator", "merge.memory_map", "merge.compile", "joint")


def flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def setting_text(value: Any) -> str:
    """A value of the config as the command line takes it: ``[mean,kind]``, ``null``, ``true``."""
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def repeating_seeds(configs: Sequence[dict[str, Any]]) -> set[str]:
    """Keys under which every run says its own seed once more; other seeds are settings."""
    flat = [dict(flatten(config)) for config in configs]
    seeds = {key for config in flat for key in config if _leaf(key) == "seed"}
    return {
        key
        for key in seeds
        if all(config.get(key, config.get("seed")) == config.get("seed") for config in flat)
    }


def relevant_settings(config: dict[str, Any], repeating: Set[str]) -> dict[str, Any]:
    """Dotted key → value, without methods, seeds of the run and what concerns its presentation."""
    dropped = (*PRESENTATION, "seed", "method")
    relevant = {key: value for key, value in config.items() if key not in dropped}
    return {
        key: value
        for key, value in flatten(relevant)
        if key not in INDIFFERENT and key not in repeating
    }


def methods_of(config: dict[str, Any]) -> dict[str, Any]:
    """Method → its parameters, without its seed, which is that of the run."""
    return {
        name: {key: value for key, value in entry.items() if key != "seed"}
        for name, entry in config.get("method", {}).items()
    }


def told_apart(settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The differences of every setting; where they are none, the keys that only one of them has."""
    differences = [dict(_differences(setting, settings)) for setting in settings]
    told = []
    for setting, own in zip(settings, differences, strict=True):
        alike = [other for other, its in zip(settings, differences, strict=True) if its == own]
        twins = [other for other in alike if _question(other) == _question(setting)]
        lacking = {
            key: value
            for key, value in setting.items()
            if not key.startswith("method") and any(key not in twin for twin in twins)
        }
        told.append(own | lacking)
    return told


def _question(setting: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(setting.get(key) for key in QUESTION)


def _differences(
    config: dict[str, Any], others: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, Any]]:
    peers = [other for other in others if _question(other) == _question(config)]
    for key, value in config.items():
        # A key that only one of them has belongs to a method that only one of them ran.
        if any(key in peer and peer[key] != value for peer in peers) and not follows(key, peers):
            yield key, value


def problem_of(settings: Mapping[str, Any], stamps: Iterable[str]) -> tuple[str, ...]:
    """Images, experts and stamps: only where these are the same can numbers be ranked."""
    told = sorted(key for key in settings if key.startswith(PROBLEM))
    return (*(f"{key}={setting_text(settings[key])}" for key in told), *stamps)


def concerns(key: str, method: str) -> bool:
    """Whether a key says something of this method: not if it is another's parameter.

    Of bounds, only images and experts do: nothing is merged or learned.
    """
    if method in BOUNDS:
        return key.startswith(PROBLEM)
    return not key.startswith("method.") or key.split(".")[1] == method


def follows(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a method's parameter is everywhere what a key of the whole run says."""
    if not key.startswith("method."):
        return False
    name = _leaf(key)
    return any(
        all(setting.get(key, setting.get(leader)) == setting.get(leader) for setting in settings)
        for leader in settings[0]
        if not leader.startswith("method.") and _leaf(leader.removesuffix(".kind")) == name
    )


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]
