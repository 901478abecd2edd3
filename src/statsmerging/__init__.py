"""StatsMerging: statistics-guided model merging (arXiv 2506.04567).

``fit`` learns the coefficients of a merge, ``merge`` merges without data: docs/library.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statsmerging.learning.library.fit import fit
    from statsmerging.merging.methods import merge

__all__ = ["fit", "merge"]

__version__ = "0.1.0"

#: Public name → its module, imported when the name is first used: importing this takes no torch.
_MODULES = {"fit": "learning.library.fit", "merge": "merging.methods"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
