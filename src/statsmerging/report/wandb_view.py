"""A Weights & Biases report that compares runs; ``--dry-run`` prints its panels.

``python -m statsmerging.report.wandb_view outputs/merge --entity TEAM``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from statsmerging.errors import UserError, first_line, printable
from statsmerging.runs.directory import RESULTS
from statsmerging.runs.results import MethodRow, read_results

#: Keys of the config by which runs are grouped; runs without a key form a group of their own.
GROUP_BY = ("granularity", "labels.kind", "corruption.kind")

TITLE = "StatsMerging: comparison of runs"


#: Title of a panel → number of a ``LayerMovement``.
MOVEMENTS = {"largest coefficient": "largest_coefficient", "movement of the weights": "relative"}


#: Number of a ``Cost`` → title of its panel.
COSTS = {"forward_passes": "forward passes, images", "parameters": "learned parameters"}


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: ``bars`` (of final numbers), ``curves`` (over learning steps), ``table`` or
            ``pictures``.
        title: heading of the panel.
        keys: logged keys that it shows.
    """

    kind: str
    title: str
    keys: list[str]


@dataclass(frozen=True)
class Section:
    """Panels over the runs of the project, grouped by a key of the config, or run by run."""

    title: str
    group_by: str | None
    panels: list[Panel]


def sections(folder: Path, group_by: Sequence[str] = GROUP_BY) -> list[Section]:
    """The panels for the methods of all runs below a folder.

    Raises:
        UserError: there is no run, or the results of a run are damaged.
    """
    rows: dict[str, MethodRow] = {}
    for path in sorted(folder.rglob(RESULTS)):
        rows |= read_results(path.parent).methods
    if not rows:
        raise UserError(f"{folder} holds no run ({RESULTS})")
    methods = list(rows)
    learned = [name for name, row in rows.items() if "learner" in row.parameters]
    moved = [f"movement/{name}/{kind}" for name in learned for kind in rows[name].movement]
    compared = [
        Panel("bars", "average accuracy on seen tasks", [f"average/{name}" for name in methods]),
        *(
            Panel("bars", title, [f"{name}/{number}" for name in moved])
            for title, number in MOVEMENTS.items()
            if moved
        ),
        *_of_costs(rows),
        *(Panel("curves", f"loss of {name}", [f"{name}/loss"]) for name in learned),
    ]
    of_directions = [
        name for name in learned if rows[name].parameters.get("granularity") == "singular_wise"
    ]
    single = [
        Panel("table", "results", ["results"]),
        *(Panel("pictures", f"coefficients of {x}", [f"coefficients/{x}"]) for x in learned),
        *(Panel("pictures", f"directions of {x}", [f"directions/{x}"]) for x in of_directions),
    ]
    groups = [Section(f"by {key}", key, compared) for key in group_by]
    return [*groups, Section("run by run", None, single)]


def _of_costs(rows: Mapping[str, MethodRow]) -> Iterator[Panel]:
    """Passes of the backbone and learned parameters, of the methods that have any."""
    for number, title in COSTS.items():
        keys = [
            f"cost/{name}/{number}"
            for name, row in rows.items()
            if row.cost is not None and getattr(row.cost, number)
        ]
        if keys:
            yield Panel("bars", title, keys)


def save(report: Sequence[Section], project: str, entity: str | None) -> str:
    """Build the report with the package of W&B, save it on the server, and return its address.

    Raises:
        UserError: the package is missing, or nobody is logged in.
    """
    import wandb

    try:
        import wandb_workspaces.reports.v2 as wr

        wandb.Api()
    except ModuleNotFoundError as error:
        raise UserError(
            "the package wandb-workspaces is missing: pip install 'statsmerging[loggers]'; "
            "--dry-run needs none"
        ) from error
    except wandb.Error as error:
        raise UserError(f"W&B: {first_line(error)}") from error
    owner = {} if entity is None else {"entity": entity}
    blocks: list[Any] = []
    for section in report:
        grouped = [] if section.group_by is None else [f"config.{section.group_by}"]
        runs = wr.Runset(project=project, groupby=grouped, **owner)
        panels = [_panel(wr, panel) for panel in section.panels]
        blocks += [wr.H2(section.title), wr.PanelGrid(runsets=[runs], panels=panels)]
    saved = wr.Report(project=project, title=TITLE, blocks=blocks, width="fluid", **owner).save()
    return str(saved.url)


def _panel(wr: Any, panel: Panel) -> Any:
    match panel.kind:
        case "bars":
            return wr.BarPlot(title=panel.title, metrics=panel.keys)
        case "curves":
            return wr.LinePlot(title=panel.title, x="learning_step", y=panel.keys)
        case "table":
            return wr.WeavePanelSummaryTable(table_name=panel.keys[0])
        case _:
            return wr.MediaBrowser(title=panel.title, media_keys=panel.keys)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m statsmerging.report.wandb_view",
        description="Build a W&B report that compares runs.",
    )
    parser.add_argument("runs", type=Path, help="folder of the runs with the methods to show")
    parser.add_argument("--project", default="statsmerging", help="default: %(default)s")
    parser.add_argument("--entity", help="user or team; default: whoever is logged in")
    parser.add_argument("--group-by", nargs="+", default=GROUP_BY, metavar="KEY")
    parser.add_argument("--dry-run", action="store_true", help="print the panels, send nothing")
    return parser.parse_args()


def main() -> None:
    """Run the command; a mistake ends in one line and status 2."""
    given = _arguments()
    try:
        report = sections(given.runs, given.group_by)
        if given.dry_run:
            print(json.dumps([asdict(section) for section in report], indent=2))
        else:
            print(save(report, given.project, given.entity))
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
