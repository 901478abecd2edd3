"""Departures from the label-free protocol, as they stand in every record and table of a run."""

from __future__ import annotations

from statsmerging.jobs.schema import Config


def stamps(config: Config) -> list[str]:
    """One short sentence for each; none for an honest run."""
    released = any(entry.get("learner") == "released_code" for entry in config.method.values())
    departures = {
        "learned from test images": config.learning.split == "test",
        "learned from ground-truth labels": config.labels.kind == "ground_truth" or released,
        "trained the classification heads": released,
        "chose the epoch by test accuracy": released,
    }
    return [f"not label-free: {name}" for name, departs in departures.items() if departs]
