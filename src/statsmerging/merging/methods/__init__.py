"""Merging methods: one file and one class each, found by name.

>>> method_named("ties", density=0.1)
Ties(density=0.1, scale=1.0)

All modules of this folder are imported here, so a method is added by adding its file. A class
outside the package registers when its own module is imported.
"""

import importlib
import pkgutil

from statsmerging.merging.methods.base import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Grid,
    Method,
    PerTaskMethod,
    method_named,
    methods,
    parameter,
)
from statsmerging.merging.methods.checks import check_method
from statsmerging.merging.methods.simple_average import simple_average
from statsmerging.merging.methods.task_arithmetic import task_arithmetic

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "DataFreeMethod",
    "Evidence",
    "EvidenceMethod",
    "Grid",
    "Method",
    "PerTaskMethod",
    "check_method",
    "method_named",
    "methods",
    "parameter",
    "simple_average",
    "task_arithmetic",
]
