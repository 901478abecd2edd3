"""Merging methods: one file and one class each, found by name.

>>> method_named("ties", density=0.1)
Ties(density=0.1, scale=1.0)

A method that needs the weights alone is also a function of a bank; ``merge`` makes the bank too:

>>> import torch
>>> from statsmerging.merging import TaskVectorBank
>>> from statsmerging.merging.methods import ties
>>> start, experts = {"w": torch.zeros(3)}, {"mnist": {"w": torch.tensor([1.0, 2.0, 3.0])}}
>>> ties(TaskVectorBank.from_state_dicts(start, experts), density=0.5)
{'w': tensor([0., 2., 3.])}
>>> merge(experts, "ties", pretrained=start, density=0.5)
{'w': tensor([0., 2., 3.])}

All modules of this folder are imported here, so a method is added by adding its file. A class
outside the package registers when its own module is imported.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from statsmerging.merging.methods.base import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Grid,
    Method,
    PerTaskMethod,
    as_function,
    merge,
    method_named,
    methods,
    parameter,
)
from statsmerging.merging.methods.checks import check_method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

# An import leaves a file's module here under the file's name: `ties` would be a module. The
# function takes that place; classes are imported from the file, `methods.ties`, as ever.
for _name, _method in methods().items():
    if issubclass(_method, DataFreeMethod | PerTaskMethod):
        globals()[_name] = as_function(_method)

if TYPE_CHECKING:  # their types; a test holds that none is missing
    from statsmerging.merging.methods.base import MergeFunction, PerTaskFunction

    ace: MergeFunction
    breadcrumbs: MergeFunction
    cart: MergeFunction
    consensus: MergeFunction
    core_space: MergeFunction
    dare_task_arithmetic: MergeFunction
    dare_ties: MergeFunction
    dc_merge: MergeFunction
    doge: MergeFunction
    emr: PerTaskFunction
    iso_c: MergeFunction
    iso_cts: MergeFunction
    knots: MergeFunction
    lines: MergeFunction
    meta_gpt: MergeFunction
    model_stock: MergeFunction
    pcb: MergeFunction
    simple_average: MergeFunction
    svc: MergeFunction
    tall_masks: PerTaskFunction
    task_arithmetic: MergeFunction
    ties: MergeFunction
    tsv_m: MergeFunction
    wudi: MergeFunction

__all__ = [
    "DataFreeMethod",
    "Evidence",
    "EvidenceMethod",
    "Grid",
    "Method",
    "PerTaskMethod",
    "check_method",
    "merge",
    "method_named",
    "methods",
    "parameter",
]
