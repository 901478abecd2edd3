"""The model card of an exported model in Markdown: method, coefficients, results and record."""

from __future__ import annotations

from typing import Any

import pandas as pd

from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import escape, markdown, markdown_row
from statsmerging.runs.results import RunResults


def model_card(
    results: RunResults,
    config: dict[str, Any],
    coefficients: pd.DataFrame,
    preprocessing: dict[str, Any],
    *,
    manifest_sha256: str,
    library: str,
    usage: str,
) -> str:
    """The card, with the block of metadata that model hubs read.

    Args:
        results: results of the run.
        config: resolved config of the run.
        coefficients: coefficients of the exported method, columns ``layer``, ``task``,
            ``coefficient`` and perhaps ``direction``; no rows if it learned none.
        preprocessing: preprocessing of an image.
        manifest_sha256: hash of ``manifest.json`` of the run.
        library: name of the library that loads the model.
        usage: Python code that loads the model.

    Raises:
        KeyError: the run exported no model, or config or preprocessing lack an entry.
    """
    side = preprocessing["image_size"]
    crop = f"{preprocessing['crop_mode']} crop, ratio {preprocessing['crop_ratio']:g}"
    row = results.methods[str(results.merged)]
    tasks = escape(", ".join(row.accuracy))
    parameters = ", ".join(f"{name} = {value}" for name, value in row.parameters.items())
    title = escape(f"{results.backbone}, merged on {results.suite}")
    return f"""---
library_name: {library}
pipeline_tag: image-feature-extraction
tags: [model-merging, statsmerging]
---

# {title}

One image backbone, merged from experts for {tasks} by {escape(row.title)}, with the software of
StatsMerging ([arXiv 2506.04567](https://arxiv.org/abs/2506.04567)). The classification heads are
not part of it.

- parameters: {escape(parameters) or "none"}
- labels of the experts: {escape(str(config["labels"]["kind"]))}
- seed: {config["seed"]}

```python
{usage}
```

- images: {side} × {side} pixels, {escape(str(preprocessing["interpolation"]))}, {escape(crop)}
- scaled to [0, 1], then mean {preprocessing["mean"]}, deviation {preprocessing["std"]}

## Results

{markdown(accuracy_content([results]))}
{_coefficient_section(coefficients)}## Record

Run `{results.run_hash}`, sha256 of its manifest `{manifest_sha256}`.
"""


def _coefficient_section(coefficients: pd.DataFrame) -> str:
    """Mean and range of the coefficients, one row per task; empty if none were learned."""
    if coefficients.empty:
        return ""
    lines = ["## Coefficients", ""]
    of_directions = "direction" in coefficients and bool(coefficients["direction"].notna().any())
    if of_directions:
        about = "One for each singular direction of a matrix, and one for each bias, norm or token."
        lines += [about, ""]
    counts = ["layers", "coefficients"] if of_directions else ["layers"]
    headings = ["task", *counts, "mean", "least", "greatest"]
    lines += [markdown_row(headings), markdown_row(["---"] + ["---:"] * (len(headings) - 1))]
    for task, rows in coefficients.groupby("task", sort=False):
        counted = [rows["layer"].nunique(), len(rows)][: len(counts)]
        values = rows["coefficient"]
        numbers = [f"{number:.3f}" for number in (values.mean(), values.min(), values.max())]
        lines.append(markdown_row([escape(str(task)), *map(str, counted), *numbers]))
    return "\n".join(lines) + "\n\n"
