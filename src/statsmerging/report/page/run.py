"""The page of one run: its table, coefficients, curves, config and commands; it needs no script."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from statsmerging.report.frames import names_of
from statsmerging.report.groups import by_setting, flatten, setting_text
from statsmerging.report.layers import KINDS
from statsmerging.report.page.answer import Values, contest_values
from statsmerging.report.page.html import PLAIN, rendered
from statsmerging.report.ranking import contests
from statsmerging.report.runs import CURVES, ReportedRun
from statsmerging.report.warnings import warned
from statsmerging.runs.directory import without_presentation
from statsmerging.runs.layer_tables import of_layers
from statsmerging.runs.manifest import this_command, typed_command
from statsmerging.runs.results import method_title

#: Share of the coefficients that have a colour of their own; the rest are beyond the last colour.
SHOWN = 0.98

#: Points of a curve, and its width and height.
POINTS, WIDTH, HEIGHT = 240, 300, 80


def run_page(run: ReportedRun, name: str, report: str, default: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        run: a finished run.
        name: of the run, as the report has it.
        report: the address of the report's page, from this one.
        default: the config without any choice; empty if it is not known.
    """
    groups = by_setting([run])
    results, manifest = run.results, run.manifest
    command = manifest.get("command", [])
    repeat = ["job=reproduce", f"job.run={run.path}"]
    return rendered(
        "run.html",
        PLAIN,
        title=name,
        report=report,
        summary=f"{results.suite} on {results.backbone} · seed {results.seed}",
        stamps=results.stamps,
        warnings=warned(groups),
        contests=[contest_values(each, several=bool(each.kind)) for each in contests(groups)],
        maps=list(_maps(run)),
        curves=list(_curves(run)),
        differences=None if not default else list(config_differences(run.config, default)),
        # What the config of a bundled run names is elsewhere.
        reproduce="" if run.bundle else f"{this_command()} {shlex.join(repeat)}",
        command_line=typed_command(command) if command else "",
        facts=list(_facts(run)),
    )


def config_differences(
    config: Mapping[str, Any], default: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Key, value and default of each entry of a config that is not the default.

    The choice of methods is one entry; parameters are compared of methods that both have.
    """
    own, usual = without_presentation(dict(config)), without_presentation(dict(default))
    methods, others = own.pop("method", {}), usual.pop("method", {})
    if list(methods) != list(others):
        yield "method", setting_text(list(methods)), setting_text(list(others))
    flat, known = dict(flatten(own)), dict(flatten(usual))
    shared = {name: methods[name] for name in methods if name in others}
    flat |= {f"method.{key}": value for key, value in flatten(shared)}
    known |= {f"method.{key}": value for key, value in flatten(others)}
    for key, value in flat.items():
        if not key.startswith("job.") and value != known.get(key, _Missing):
            default_text = setting_text(known[key]) if key in known else "no such key"
            yield key, setting_text(value), default_text


class _Missing:
    """Equal to no value of a config."""


def _maps(run: ReportedRun) -> Iterator[Values]:
    """For each learned method its coefficients: kinds of layers, tensors, tasks × blocks."""
    if not len(run.coefficients):
        return
    frame = of_layers(run.coefficients)
    frame = frame.join(names_of(frame["layer"]))
    for method, rows in frame.groupby("method", sort=False):
        limit = max(float(rows["coefficient"].abs().quantile(SHOWN)), 1e-6)
        kinds = sorted(rows["kind"].unique(), key=KINDS.index)
        yield {
            "title": _title(run, str(method)),
            "limit": f"{limit:.2f}",
            "largest": f"{max(rows['coefficient'], key=abs):.2f}",
            "signed": bool((rows["coefficient"] < 0).any()),
            "kinds": [_kind(kind, rows[rows["kind"] == kind], limit) for kind in kinds],
        }


def _kind(kind: str, rows: pd.DataFrame, limit: float) -> Values:
    values = rows["coefficient"]
    # Tensors outside of blocks have a map each.
    maps = rows["part"].where(rows["block"] != "", rows["layer"])
    return {
        "name": kind,
        "mean": f"{values.mean():.2f}",
        "range": f"{values.min():.2f} to {values.max():.2f}",
        "maps": [_map(str(name), part, limit) for name, part in rows.groupby(maps, sort=False)],
    }


def _map(name: str, rows: pd.DataFrame, limit: float) -> Values:
    """One tensor of every block: a row for each task, a column for each block, by depth."""
    blocks = list(rows["block"].unique())
    return {
        "name": name,
        "blocks": [block.rpartition(".")[2] for block in blocks],
        "rows": [
            {
                "task": str(task).replace("_", " "),
                "cells": [
                    {
                        "shade": round(min(abs(value) / limit, 1.0) * 100),
                        "negative": value < 0,
                        "told": f"{layer} · {task}: {value:.3f}",
                    }
                    for layer, value in zip(own["layer"], own["coefficient"], strict=True)
                ],
            }
            for task, own in rows.groupby("task", sort=False)
        ],
    }


def _curves(run: ReportedRun) -> Iterator[Values]:
    for method, curve in run.curves.items():
        for column, meaning in CURVES.items():
            known = curve[["step", column]].replace([np.inf, -np.inf], np.nan).dropna()
            if len(known) > 1:
                places = np.linspace(0, len(known) - 1, min(POINTS, len(known))).astype(int)
                steps, values = (known[name].to_numpy()[places] for name in ("step", column))
                yield {
                    "title": _title(run, method),
                    "meaning": meaning,
                    "points": _points(steps, values),
                    "first": f"{values[0]:.3g}",
                    "last": f"{values[-1]:.3g}",
                    "low": f"{values.min():.3g}",
                    "high": f"{values.max():.3g}",
                    "steps": int(steps[-1]) + 1,
                }


def _points(steps: Any, values: Any) -> str:
    """The points of a line in SVG, whose y goes down."""
    across = WIDTH * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    width = max(values.max() - values.min(), 1e-12)
    down = HEIGHT * (1 - (values - values.min()) / width)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))


def _facts(run: ReportedRun) -> Iterator[tuple[str, str]]:
    code = run.manifest.get("code", {})
    yield "directory", str(run.path)
    yield "hash", run.results.run_hash
    if run.bundle is not None:
        yield "from", run.bundle.about
    for name, value in {**code, **run.manifest.get("hardware", {})}.items():
        yield str(name).replace("_", " "), setting_text(value)


def _title(run: ReportedRun, method: str) -> str:
    row = run.results.methods.get(method)
    return method_title(method, "" if row is None else row.title)
