"""The config of a received run may choose data and numbers, but no code, loader or network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from statsmerging.app.config import Config, parse_config
from statsmerging.errors import printable, shown
from statsmerging.merging.learner import ANCHORED_START
from statsmerging.runs.directory import WITH_RESULTS
from statsmerging.runs.finished import FinishedRun
from statsmerging.store.received import ReceivedError, is_plain_name
from statsmerging.zoo.backbones import check_backbone
from statsmerging.zoo.settings import (
    HUB,
    BackboneSettings,
    FusionBenchZooSettings,
    ZeroShotHeadsSettings,
)

#: Parameters that older versions did not record, with the behaviour of those versions.
_METHODS = {
    "tsv_m": {"flatten_convolutions": True},
    "iso_c": {"flatten_convolutions": True},
    "iso_cts": {"flatten_convolutions": True},
    "wudi": {"all_tensors": True},
}


def received_config(run: FinishedRun, own: Config) -> tuple[Config, dict[str, Any]]:
    """The config of a received run as this command may run it, parsed and as plain values.

    Cache, loggers and plugins are those of this command.

    Raises:
        UserError: a value that is not valid, or one that this command does not allow; the message
            names the key that would allow it.
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
    if name not in WITH_RESULTS:
        raise ReceivedError(
            f"{where} is of job={shown(str(name))}; reproduced are {', '.join(WITH_RESULTS)}"
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


def _with_later_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config in today's keys; missing ones get the value that held in the run's version."""
    learned = {
        "link": config.get("link"),
        "anchor": _section(config, "merge").get("anchor"),
        "scale": _section(config, "learner").get("scale"),
        "start": ANCHORED_START,
    }
    as_released = {**learned, "trains": "coefficients_and_heads"}

    def later(name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        if "learner" not in entry:
            return _METHODS.get(name, {})
        return as_released if entry["learner"] == "released_code" else learned

    methods = {
        name: {**later(name, entry), **entry}
        for name, entry in _section(config, "method").items()
        if isinstance(entry, dict)
    }
    return {**config, "method": {**_section(config, "method"), **methods}}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _backbones(config: Config) -> Iterator[BackboneSettings]:
    yield config.backbone
    for expert in config.heterogeneous.experts.values():
        yield expert.backbone


def _addresses(config: Config) -> Iterator[str]:
    """Addresses on the hub; a library would also accept a local folder of that name."""
    if config.suite.root is None:
        for entry in config.suite.catalogue.values():
            yield entry.id
    if isinstance(config.zoo, FusionBenchZooSettings) and config.zoo.root is None:
        yield config.zoo.base
        yield config.zoo.expert.replace("{task}", "task")
        yield from config.zoo.names.values()


def _downloads(config: Config) -> Iterator[str]:
    """Keys whose weights a library downloads without asking the hub's settings."""
    if any(backbone.weights == HUB for backbone in _backbones(config)):
        yield f"backbone.weights={HUB}"
    if isinstance(config.heads, ZeroShotHeadsSettings) and config.heads.text == HUB:
        yield f"heads.text={HUB}"
