"""Tidy frames of groups of runs: one row per number. All figures are drawn from these.

Accuracies are those of all zoos; what belongs to the experts of one, coefficients, statistics and
cosines, and the curves that were learned from them, is taken of groups of one zoo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from statsmerging.report.groups import RunGroup, setting_text
from statsmerging.report.layers import layer_name
from statsmerging.report.repetitions import Repetition, rows_by_method, spread
from statsmerging.report.runs import CURVES
from statsmerging.runs.layer_tables import of_directions, of_layers
from statsmerging.runs.results import BOUNDS, MethodRow, RunResults, method_title

#: The method this software is about: drawn even where others are better.
OWN = "stats_merging"


def accuracies(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Accuracies on the single tasks, in percent.

    Columns: ``setting``, ``method``, ``title``, ``zoo``, ``seed``, ``task``, ``seen``,
    ``accuracy``.
    """
    return _frame(
        ["setting", "method", "title", "zoo", "seed", "task", "seen", "accuracy"],
        (
            (group.label, method, title, *repetition, task, seen, 100 * accuracy)
            for group in groups
            for repetition, method, title, row in method_rows(group)
            for seen, cells in ((True, row.accuracy), (False, row.unseen.accuracy))
            for task, accuracy in cells.items()
        ),
    )


def averages(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Averages over the seen tasks by setting, in percent; the best setting comes first.

    Columns as in ``accuracies``, where ``setting`` is suite and backbone, and ``task`` all further
    differences of the setting.
    """
    frame = _frame(
        ["setting", "method", "title", "zoo", "seed", "task", "seen", "accuracy"],
        (
            (group.problem, method, title, *each, _short_setting(group), True, 100 * row.average)
            for group in groups
            for each, method, title, row in method_rows(group)
        ),
    )
    merged = frame["accuracy"].where(~frame["method"].isin(BOUNDS))
    means = merged.groupby([frame["setting"], frame["task"]]).transform("mean")
    return frame.assign(mean=means).sort_values("mean", ascending=False, kind="stable")


def over_repetitions(frame: pd.DataFrame, keys: Sequence[str], values: str) -> pd.DataFrame:
    """Means and deviations over zoos and seeds, as the tables have them.

    Args:
        frame: columns ``zoo``, ``seed``, and those of keys and values.
        keys: what tells the rows of the result apart.
        values: column of the numbers.

    Returns:
        The keys, ``mean``, ``std`` (missing with one repetition) and ``over``, what the deviation
        is over; in the order of the frame.
    """
    rows = []
    for key, part in frame.groupby(list(keys), sort=False):
        repetitions = map(Repetition, part["zoo"], part["seed"])
        found = spread(dict(zip(repetitions, part[values], strict=True)))
        rows.append((*key, found.mean, found.std, found.over))
    return _frame([*keys, "mean", "std", "over"], rows).astype({"std": float})


def best_methods(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of ``accuracies`` of bounds, StatsMerging, and others with the best averages.

    Args:
        frame: of one setting; its order stays.
        count: number of methods without bounds.
    """
    merged = frame[frame["seen"] & ~frame["method"].isin(BOUNDS)]
    of_zoos = merged.groupby(["method", "zoo"], sort=False)["accuracy"].mean()
    means = of_zoos.groupby("method").mean()
    own = means.index.intersection([OWN])
    best = means.drop(own).nlargest(count - len(own)).index
    return frame[frame["method"].isin([*BOUNDS, *own, *best])]


def coefficients(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Merging coefficients, means over the seeds, in the order of the layers in the network.

    Columns: ``setting``, ``method``, ``title``, ``layer``, ``block``, ``part``, ``kind``, ``task``,
    ``coefficient``.
    """
    return _means(groups, of_layers, ["setting", "method", "title", "layer", "task"])


def directions(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Coefficients of singular directions, means over the seeds and over directions of a bin.

    Columns: those of ``coefficients``; ``start`` and ``end`` of the bin, see ``of_directions``.
    """
    keys = ["setting", "method", "title", "layer", "task", "start", "end"]
    return _means(groups, of_directions, keys)


def by_position(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean coefficients of ``directions`` by position; a kind has as many bins as its least layer.

    Columns: ``kind``, ``task``, ``position`` (i / r, middle of the bin), ``coefficient``.
    """
    width = (frame["end"] - frame["start"]).groupby(frame["kind"]).transform("max")
    middle = (frame["start"] + frame["end"]) / 2
    placed = frame.assign(position=((middle / width).astype(int) + 0.5) * width)
    keys = ["kind", "task", "position"]
    return placed.groupby(keys, sort=False)["coefficient"].mean().reset_index()


def by_depth(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean coefficients of ``coefficients`` by depth; layers outside of blocks are left out.

    Columns: ``kind``, ``task``, ``depth`` (number of the block, from 0), ``coefficient``.
    """
    inside = frame[frame["block"] != ""]
    order = {block: place for place, block in enumerate(inside["block"].unique())}
    placed = inside.assign(depth=inside["block"].map(order))
    keys = ["kind", "task", "depth"]
    return placed.groupby(keys, sort=False)["coefficient"].mean().reset_index()


def learning_curves(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Loss and norm of the gradient at every optimiser step.

    Columns: ``setting``, ``method``, ``title``, ``seed``, ``quantity``, ``step``, ``value``.
    """
    frames = [frame for group in groups for frame in _curves_of(group)]
    if not frames:
        columns = ["setting", "method", "title", "seed", "quantity", "step", "value"]
        return _frame(columns, ())
    return pd.concat(frames, ignore_index=True)


def statistics(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Statistics of the experts' layers, each with the layer-wise coefficient of that layer.

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
            # Blocks of a layer, ``NAME[0]``, share its statistics.
            tensors = own["layer"].str.replace(r"\[\d+\]$", "", regex=True)
            named = tidy.rename(columns={"layer": "tensor"})
            found = own.assign(tensor=tensors).merge(named, on=["tensor", "task"])
            frames.append(found.drop(columns="tensor"))
    if not frames:
        return _frame([*learned.columns, "statistic", "value"], ())
    return pd.concat(frames, ignore_index=True)


def axis_scale(rows: pd.DataFrame) -> str:
    """``log`` for a statistic that is never negative, because it spans orders of magnitude."""
    return "linear" if (rows["value"] < 0).any() else "log"


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """The values of one statistic that its axis can show; a logarithmic one shows no zeros.

    Singular values beyond the rank of a layer are padded with zeros.
    """
    return rows if axis_scale(rows) == "linear" else rows[rows["value"] > 0]


def cosines(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Cosines between whole task vectors: columns ``setting``, ``task``, ``other``, ``cosine``.

    If all settings of a suite and backbone have the same cosines, because they have the same
    experts, ``setting`` is suite and backbone alone.
    """
    known = [(group, _cosines_of(group)) for group in groups]
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


def method_rows(group: RunGroup) -> Iterator[tuple[Repetition, str, str, MethodRow]]:
    """Repetition, name, title and row of every method; of runs of one repetition the first."""
    for method, rows in rows_by_method(group.repeated).items():
        for repetition, row in rows.items():
            yield repetition, method, method_title(method, row.title), row


def split(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Parts of a frame with equal values in these columns, each named by those values."""
    for values, part in frame.groupby(list(columns), sort=False):
        yield " · ".join(map(str, values)), part


def _short_setting(group: RunGroup) -> str:
    """The differences of a group, with the last part of each key."""
    own = {key: value for key, value in group.differences.items() if key != "method"}
    return ", ".join(f"{key.rpartition('.')[2]}={setting_text(own[key])}" for key in own)


def _means(
    groups: Sequence[RunGroup], of: Callable[[pd.DataFrame], pd.DataFrame], keys: list[str]
) -> pd.DataFrame:
    """Means over the seeds, with the parts of the layers' names.

    Args:
        of: table of coefficients → what is shown of them.
        keys: columns that tell rows of several seeds apart.
    """
    frames = [frame for group in groups for frame in _coefficients_of(group, of)]
    if not frames:
        return _frame([*keys, "block", "part", "kind", "coefficient"], ())
    means = pd.concat(frames).groupby(keys, sort=False)["coefficient"].mean().reset_index()
    return means.join(names_of(means["layer"]))


def _coefficients_of(
    group: RunGroup, of: Callable[[pd.DataFrame], pd.DataFrame]
) -> Iterator[pd.DataFrame]:
    for member in group.members:
        if len(member.coefficients):
            frame = of(member.coefficients)
            titles = {name: _title(member.results, name) for name in frame["method"].unique()}
            yield frame.assign(setting=group.label, title=frame["method"].map(titles))


def names_of(layers: pd.Series) -> pd.DataFrame:
    """Columns ``block``, ``part`` and ``kind`` of the names of layers, by their index."""
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
                title=_title(member.results, method),
                seed=member.results.seed,
            )


def _cosines_of(group: RunGroup) -> dict[str, dict[str, float]]:
    """Cosines of the first run that has some; they do not depend on the seed."""
    known = (results.task_vector_cosines for results in group.results)
    return next((cosines for cosines in known if cosines), {})


def _title(results: RunResults, method: str) -> str:
    row = results.methods.get(method)
    return method_title(method, "" if row is None else row.title)


def _frame(columns: list[str], rows: Any) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns)
