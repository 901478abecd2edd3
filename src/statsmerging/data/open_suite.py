"""The suite that the config's section ``suite`` describes."""

from __future__ import annotations

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.hub import hub_suite
from statsmerging.data.settings import DatasetLayout, SuiteSettings
from statsmerging.data.suites import Suite, embedded_suite
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache


def open_suite(settings: SuiteSettings, cache: Cache) -> Suite:
    """The tasks that the settings name, seen and unseen.

    Raises:
        UserError: anything wrong with them, or files that are missing.
    """
    suite = _all_tasks(settings, cache)
    if settings.split is not None:
        suite = suite.hold_out(settings.splits[settings.split])
    if settings.first is not None:
        if settings.first > len(suite.seen):
            raise UserError(
                f"suite.first={settings.first}: the suite has {len(suite.seen)} seen tasks"
            )
        suite = suite.first(settings.first)
    return suite


def _all_tasks(suite: SuiteSettings, cache: Cache) -> Suite:
    """The suite before ``split`` and ``first``."""
    if suite.kind == "embedded":
        return embedded_suite(suite.tasks, suite.unseen)
    arrow = cache.root / "datasets"
    if suite.kind == "hub":
        return hub_suite(
            suite.name, suite.catalogue, suite.root, suite.tasks, suite.unseen, cache=arrow
        )
    if suite.root is None:
        raise UserError("suite.root: a folder with one subfolder per task is needed")
    layout = DatasetLayout(image=suite.image, label=suite.label)
    return folder_suite(
        suite.root, suite.tasks, suite.unseen, cache=arrow, name=suite.name, layout=layout
    )
