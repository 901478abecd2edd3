"""Which runs belong together, and in which settings the groups of runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from statsmerging.errors import UserError
from statsmerging.report.bundles import reported_runs, same_content, senders
from statsmerging.report.pairs import PairedMethods, by_test_images
from statsmerging.report.repetitions import (
    RepeatedRun,
    is_expert_seed,
    rows_by_method,
    telling_seeds,
    zoo_name,
    zoo_order,
)
from statsmerging.report.runs import ReportedRun
from statsmerging.runs.directory import PRESENTATION
from statsmerging.runs.results import BOUNDS, RunResults

#: Keys of the question that a run answers. Settings are compared among runs with equal values.
QUESTION = ("job.name", "suite.name", "backbone.label")

#: Key of a setting that others sent with other images or experts; its value names the senders.
SENDER = "from"

#: Prefixes of the keys that choose images and experts. Scores are ranked among runs with equal
#: values.
PROBLEM = (
    "suite.",
    "corruption.",
    "zoo.",
    "backbone.",
    "heads.",
    "heterogeneous.experts.",
    "heterogeneous.teachers.",
    "heterogeneous.distillation.",
    SENDER,
)

#: Keys that change no number, except by rounding, or that only add further rows.
INDIFFERENT = (
    "threads",
    "accelerator",
    "merge.memory_map",
    "merge.compile",
    "joint",
    "plugins",
    "plugin_methods",
    "tuning.oracle",
)

#: A title lists the names of up to this many methods, and gives the number of more.
LISTED_METHODS = 4

Settings = dict[str, Any]


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed and the seeds of their experts.

    Attributes:
        members: the runs, in the order of zoos and seeds; runs of most methods first.
        settings: dotted key → value of everything that the runs have in common.
        differences: the settings in which groups with the same suite and backbone differ.
        expert_seeds: keys of the seeds that tell the zoos of the whole folder apart; empty if there
            is one only.
        zoo: name of the only zoo whose runs these are, for what is shown of one zoo.
    """

    members: Sequence[ReportedRun]
    settings: Mapping[str, Any]
    differences: Mapping[str, Any]
    expert_seeds: Sequence[str] = ()
    zoo: str = ""

    @property
    def results(self) -> list[RunResults]:
        """Results of the runs."""
        return [member.results for member in self.members]

    @property
    def repeated(self) -> list[RepeatedRun]:
        """Results of the runs, each with its zoo."""
        return [RepeatedRun(member.results, self.zoo_of(member)) for member in self.members]

    def zoo_of(self, run: ReportedRun) -> str:
        """Name of the zoo of a run; empty if all runs of the folder have the same."""
        return _zoo_of(run, self.expert_seeds)

    @property
    def of_first_zoo(self) -> RunGroup:
        """The runs of the first zoo alone, which the label then names."""
        first = self.zoo_of(self.members[0])
        members = [run for run in self.members if self.zoo_of(run) == first]
        return replace(self, members=members, zoo=first)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config of the first run."""
        return self.members[0].config

    @property
    def stamps(self) -> list[str]:
        """Stamps of the runs, each once."""
        return list(dict.fromkeys(stamp for results in self.results for stamp in results.stamps))

    @property
    def setting(self) -> tuple[str, ...]:
        """``key=value`` of the differences."""
        return tuple(f"{key}={setting_text(value)}" for key, value in self.differences.items())

    @property
    def label(self) -> str:
        """Suite, backbone and differences; unique among all groups."""
        return " · ".join([self.problem, *self.setting])

    @property
    def problem(self) -> str:
        """Suite and backbone, and the zoo where it is one of several."""
        first = self.members[0].results
        zoo = [f"zoo {self.zoo}"] if self.zoo else []
        return " · ".join([first.suite, first.backbone, *zoo])

    @cached_property
    def paired(self) -> PairedMethods | None:
        """Its methods for paired tests; ``None`` if runs have no outcomes or other test images."""
        found = by_test_images(self.members)
        whole = len(found) == 1 and len(found[0].members) == len(self.members)
        return found[0] if whole else None


@dataclass
class _Gathering:
    """Runs with one setting, and the parameters of all their methods, while they are gathered."""

    setting: Settings
    methods: dict[str, Any] = field(default_factory=dict)
    runs: list[ReportedRun] = field(default_factory=list)


def runs_by_setting(folder: Path) -> list[RunGroup]:
    """All finished runs below a folder, grouped by everything but seeds and choice of methods.

    So deterministic methods may be run once, and the others with several seeds. The seeds of the
    experts make no setting either. Groups are ordered by the values of their settings, numbers by
    size.

    Raises:
        UserError: there is no finished run.
    """
    runs = reported_runs(folder)
    if not runs:
        raise UserError(f"job.runs={folder} holds no finished run (manifest.json, results.json)")
    return by_setting(runs)


def by_setting(runs: Sequence[ReportedRun]) -> list[RunGroup]:
    """The groups of at least one run, as ``runs_by_setting`` has them.

    Runs of several senders are one setting only as far as they have the same images and, with equal
    seeds, the same experts: another machine makes others from the same config.
    """
    flat = [dict(flatten(run.config)) for run in runs]
    repeating = _repeating_seeds(flat) | {
        key for each in flat for key in each if is_expert_seed(key)
    }
    expert_seeds = telling_seeds(flat)
    gathered: list[_Gathering] = []
    for run in runs:
        setting, methods = _setting_of(run.config, repeating), _methods_of(run.config)
        for group in gathered:
            # Methods that both have must have equal parameters.
            shared = group.methods.keys() & methods.keys()
            alike = all(group.methods[name] == methods[name] for name in shared)
            if setting == group.setting and alike and _fits(run, group.runs, expert_seeds):
                break
        else:
            group = _Gathering(setting)
            gathered.append(group)
        group.methods.update(methods)
        group.runs.append(run)

    settings = []
    for group in gathered:
        names = list(group.methods)
        listed = ", ".join(names) if len(names) <= LISTED_METHODS else f"{len(names)} methods"
        parameters = {f"method.{key}": value for key, value in flatten(group.methods)}
        sender = {SENDER: senders(group.runs)} if _contested(group, gathered, expert_seeds) else {}
        settings.append({**group.setting, **parameters, **sender, "method": listed})

    def most_methods_first(run: ReportedRun) -> tuple[Any, ...]:
        """The first run decides the order of rows."""
        zoo = zoo_order(_zoo_of(run, expert_seeds))
        return -len(run.results.methods), zoo, run.results.seed

    groups = [
        RunGroup(sorted(group.runs, key=most_methods_first), setting, differences, expert_seeds)
        for group, setting, differences in zip(
            gathered, settings, setting_differences(settings), strict=True
        )
    ]
    return sorted(groups, key=_by_values)


def overruled_runs(groups: Sequence[RunGroup]) -> list[Path]:
    """Directories of runs that repeat setting, zoo and seed of another run, but not its numbers."""
    found = []
    for group in groups:
        counted = rows_by_method(group.repeated)
        for member, run in zip(group.members, group.repeated, strict=True):
            if any(
                row.accuracy != counted[name][run.repetition].accuracy
                for name, row in run.results.methods.items()
            ):
                found.append(member.path)
    return found


def setting_differences(settings: Sequence[Settings]) -> list[Settings]:
    """For each setting the entries in which settings with the same question differ.

    A key that is missing is no difference, because it belongs to a method that only some runs have.
    Only if two settings are not distinguished otherwise, keys count that one of them lacks.
    """
    questions = [tuple(setting.get(key) for key in QUESTION) for setting in settings]
    frame = pd.DataFrame([{key: _Cell(value) for key, value in each.items()} for each in settings])
    differences: list[Settings] = [{} for _ in settings]
    peers: dict[tuple[Any, ...], list[int]] = {}
    for place, question in enumerate(questions):
        peers.setdefault(question, []).append(place)
    for places in peers.values():
        varied = frame.columns[frame.iloc[places].nunique() > 1]
        members = [settings[place] for place in places]
        telling = [key for key in varied if not follows(key, members)]
        for place in places:
            differences[place] = {k: v for k, v in settings[place].items() if k in telling}

    whole = []
    for setting, own, question in zip(settings, differences, questions, strict=True):
        twins = [settings[n] for n in peers[question] if differences[n] == own]
        lacking = {
            key: value
            for key, value in setting.items()
            if not key.startswith("method") and any(key not in twin for twin in twins)
        }
        whole.append(own | lacking)
    return whole


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry of a nested config."""
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


def problem_of(settings: Mapping[str, Any], stamps: Iterable[str]) -> tuple[str, ...]:
    """Images, experts and stamps; scores are ranked only if all of these are equal."""
    keys = sorted(key for key in settings if key.startswith(PROBLEM))
    return (*(f"{key}={setting_text(settings[key])}" for key in keys), *stamps)


def concerns(key: str, method: str) -> bool:
    """Whether a key can change the scores of a method.

    The parameters of another method cannot. Bounds depend on images and experts alone, because
    nothing is merged or learned.
    """
    if method in BOUNDS:
        return key.startswith(PROBLEM)
    return not key.startswith("method.") or key.split(".")[1] == method


def follows(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a parameter of a method equals a key of the whole run in all settings."""
    if not key.startswith("method."):
        return False
    name = _last_part(key)
    return any(
        all(setting.get(key, setting.get(leader)) == setting.get(leader) for setting in settings)
        for leader in settings[0]
        if not leader.startswith("method.") and _last_part(leader.removesuffix(".kind")) == name
    )


class _Cell:
    """A value of the config in a frame: lists have no hash, and pandas takes ``None`` for a gap."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cell) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(len(self.value) if isinstance(self.value, list) else self.value)


def _repeating_seeds(configs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys that repeat the seed of the run in every run; other seeds are settings.

    Args:
        configs: dotted key → value.
    """
    seeds = {key for config in configs for key in config if _last_part(key) == "seed"}
    return {
        key
        for key in seeds
        if all(config.get(key, config.get("seed")) == config.get("seed") for config in configs)
    }


def _zoo_of(run: ReportedRun, expert_seeds: Sequence[str]) -> str:
    return zoo_name(dict(flatten(run.config)), expert_seeds)


def _fits(run: ReportedRun, others: Iterable[ReportedRun], expert_seeds: Sequence[str]) -> bool:
    """Whether a run has the images of the others, and the experts of those with its zoo."""
    zoo = _zoo_of(run, expert_seeds)
    return all(
        same_content(run, other, same_experts=zoo == _zoo_of(other, expert_seeds))
        for other in others
    )


def _contested(
    group: _Gathering, others: Iterable[_Gathering], expert_seeds: Sequence[str]
) -> bool:
    """Whether another sender has the same setting with other images or experts."""
    return any(
        other.setting == group.setting
        and not all(_fits(run, other.runs, expert_seeds) for run in group.runs)
        for other in others
    )


def _setting_of(config: dict[str, Any], repeating: Set[str]) -> Settings:
    """Dotted key → value, without methods, seeds of the run and keys of its presentation."""
    dropped = (*PRESENTATION, "seed", "method")
    relevant = {key: value for key, value in config.items() if key not in dropped}
    return {
        key: value
        for key, value in flatten(relevant)
        if key not in INDIFFERENT and key not in repeating
    }


def _methods_of(config: dict[str, Any]) -> dict[str, Any]:
    """Method → its parameters, without its seed, which is that of the run."""
    return {
        name: {key: value for key, value in entry.items() if key != "seed"}
        for name, entry in config.get("method", {}).items()
    }


def _by_values(group: RunGroup) -> tuple[Any, ...]:
    """Orders groups by their settings, not by the names of their directories."""
    first = group.members[0].results
    values = (first.suite, first.backbone, *group.differences.values())
    return tuple(
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in values
    )


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]
