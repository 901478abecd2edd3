"""Tidy tables of run directories: one row per number. All figures are drawn from these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from statsmerging.report.layers import layer_name
from statsmerging.report.reading import CURVES
from statsmerging.report.rows import BOUNDS, method_title, rows_by_method
from statsmerging.report.runs import RunGroup
from statsmerging.report.settings import setting_text


def accuracies(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Accuracies on single tasks, in percent.

    Columns: ``setting``, ``method``, ``title``, ``seed``, ``task``, ``seen``, ``accuracy``.
    """
    return _frame(
        ["setting", "method", "title", "seed", "task", "seen", "accuracy"],
        (
            (group.label, method, title, seed, task, seen, 100 * accuracy)
            for group in groups
            for seed, method, title, row in method_rows(group)
            for seen, numbers in ((True, row), (False, row.get("unseen", {})))
            for task, accuracy in numbers.get("accuracy", {}).items()
        ),
    )


def averages(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Averages over seen tasks by setting, in percent; the best setting comes first.

    Columns as in ``accuracies``: ``setting`` is suite and backbone, ``task`` what else differs.
    """
    frame = _frame(
        ["setting", "method", "title", "seed", "task", "seen", "accuracy"],
        (
            (group.problem, method, title, seed, _own(group), True, 100 * row["average"])
            for group in groups
            for seed, method, title, row in method_rows(group)
        ),
    )
    merged = frame["accuracy"].where(~frame["method"].isin(BOUNDS))
    means = merged.groupby([frame["setting"], frame["task"]]).transform("mean")
    return frame.assign(mean=means).sort_values("mean", ascending=False, kind="stable")


def coefficients(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Merging coefficients, means over the seeds, in the network's order of layers.

    Columns: ``setting``, ``method``, ``title``, ``layer``, ``block``, ``part``, ``kind``, ``task``,
    ``coefficient``.
    """
    frames = [frame for group in groups for frame in _coefficients_of(group)]
    keys = ["setting", "method", "title", "layer", "task"]
    if not frames:
        return _frame([*keys, "block", "part", "kind", "coefficient"], ())
    means = pd.concat(frames).groupby(keys, sort=False)["coefficient"].mean().reset_index()
    return means.join(_names(means["layer"]))


def by_depth(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean coefficients: columns ``kind``, ``depth`` (block counted from 0), ``task``, and it."""
    inside = frame[frame["block"] != ""]
    order = {block: place for place, block in enumerate(inside["block"].unique())}
    placed = inside.assign(depth=inside["block"].map(order))
    keys = ["kind", "task", "depth"]
    return placed.groupby(keys, sort=False)["coefficient"].mean().reset_index()


def learning_curves(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Loss and gradient of every optimiser step.

    Columns: ``setting``, ``method``, ``title``, ``seed``, ``quantity``, ``step``, ``value``. A run
    that was killed and continued has written some steps twice; the later ones count.
    """
    frames = [frame for group in groups for frame in _curves_of(group)]
    if not frames:
        columns = ["setting", "method", "title", "seed", "quantity", "step", "value"]
        return _frame(columns, ())
    return pd.concat(frames, ignore_index=True)


def statistics(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Statistics of the experts' layers beside the layer-wise coefficients they were given.

    Columns: those of ``coefficients``, ``statistic``, ``value``.
    """
    learned = coefficients(groups)
    frames = []
    for group in groups:
        # The experts' statistics do not depend on the seed: any run of a group has them.
        known = [run.statistics for run in group.members if run.statistics is not None]
        if known:
            tidy = known[0].melt(["layer", "task"], var_name="statistic")
            own = learned[learned["setting"] == group.label]
            frames.append(own.merge(tidy, on=["layer", "task"]))
    if not frames:
        return _frame([*learned.columns, "statistic", "value"], ())
    return pd.concat(frames, ignore_index=True)


def axis_scale(rows: pd.DataFrame) -> str:
    """``log`` for a statistic that is never negative: it spans orders of magnitude."""
    return "linear" if (rows["value"] < 0).any() else "log"


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """Values of one statistic that have a place on its axis: singular values padded with 0 not."""
    return rows if axis_scale(rows) == "linear" else rows[rows["value"] > 0]


def cosines(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Cosines between whole task vectors: columns ``setting``, ``task``, ``other``, ``cosine``.

    They belong to the experts: where all settings of a suite and backbone share these, ``setting``
    names no more than suite and backbone.
    """
    known = [(group, _fact(group, "task_vector_cosines")) for group in groups]
    shared = {
        group.problem
        for group, cells in known
        if all(theirs in ({}, cells) for peer, theirs in known if peer.problem == group.problem)
    }
    frame = _frame(
        ["setting", "task", "other", "cosine"],
        (
            (group.problem if group.problem in shared else group.label, task, other, cosine)
            for group, cells in known
            for task, row in cells.items()
            for other, cosine in row.items()
        ),
    )
    return frame.drop_duplicates(ignore_index=True)


def method_rows(group: RunGroup) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Seed, name, title and row of ``results.json`` of every method; a seed counts once."""
    for method, rows in rows_by_method(group.runs).items():
        for seed, row in rows.items():
            yield seed, method, method_title(method, row), row


def split(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Parts of a frame that agree in these columns, named by their values, in order."""
    for values, part in frame.groupby(list(columns), sort=False):
        yield " · ".join(map(str, values)), part


def _own(group: RunGroup) -> str:
    """What tells this group from the others, without the places of the keys."""
    own = {key: value for key, value in group.differences.items() if key != "method"}
    return ", ".join(f"{key.rpartition('.')[2]}={setting_text(own[key])}" for key in own)


def _coefficients_of(group: RunGroup) -> Iterator[pd.DataFrame]:
    for member in group.members:
        frame = member.coefficients
        if len(frame):
            rows = member.results["methods"]
            titles = {name: method_title(name, rows.get(name, {})) for name in frame["method"]}
            yield frame.assign(setting=group.label, title=frame["method"].map(titles))


def _names(layers: pd.Series) -> pd.DataFrame:
    names = [layer_name(layer) for layer in layers]
    return pd.DataFrame(
        {key: [getattr(name, key) for name in names] for key in ("block", "part", "kind")},
        index=layers.index,
    )


def _curves_of(group: RunGroup) -> Iterator[pd.DataFrame]:
    for member in group.members:
        for method, curve in member.curves.items():
            tidy = curve.rename(columns=CURVES).melt("step", var_name="quantity")
            yield tidy.assign(
                setting=group.label,
                method=method,
                title=method_title(method, member.results["methods"][method]),
                seed=member.results["seed"],
            )


def _fact(group: RunGroup, key: str) -> dict[str, Any]:
    return next((run[key] for run in group.runs if run.get(key)), {})


def _frame(columns: list[str], rows: Any) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns)
