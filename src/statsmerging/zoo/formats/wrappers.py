"""What training wraps around a model: prefixes of its tensors' names, entries of its files.

A model is found by its own names, whatever stands before them. Where a file holds a moving average
as complete as the weights beside them, the average is taken, as timm does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

from torch import Tensor

#: Before all names of a moving average; before those of DataParallel, of torch.compile, and of a
#: module that holds the network as an attribute.
_AVERAGED = ("model_ema.", "ema_model.", "ema.")
_WRAPPERS = (*_AVERAGED, "module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")

#: Entries of a training file that hold a moving average, and that hold the weights.
AVERAGED_ENTRIES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
ENTRIES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params")

#: Wrappers around each other.
_DEPTH = 4


def wrapper_of(names: Iterable[str], known: Container[str]) -> str:
    """The prefix behind which most names are known; a moving average's before another one.

    Args:
        names: of the tensors of a file.
        known: names of the model.

    Returns:
        Empty where the names are known as they stand, or none is known.
    """
    found: Counter[str] = Counter()
    for name in names:
        for prefix in _prefixes(name):
            found[prefix] += name[len(prefix) :] in known
    ranks = {prefix: (count, is_average(prefix), -len(prefix)) for prefix, count in found.items()}
    best = max(ranks, key=ranks.__getitem__, default="")
    return best if found[best] else ""


def without_wrapper(state: Mapping[str, Tensor], wrapper: str) -> Mapping[str, Tensor]:
    """The tensors behind a prefix, without it."""
    if not wrapper:
        return state
    return {name.removeprefix(wrapper): state[name] for name in state if name.startswith(wrapper)}


def is_average(wrapper: str) -> bool:
    """Whether the tensors behind a prefix are a moving average."""
    return any(f"{part}." in _AVERAGED for part in wrapper.split("."))


def around(wrapper: str) -> list[str]:
    """The prefix and those around it, from the inside out: ``a.b.``, ``a.``, and none."""
    parts = wrapper.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:end]) for end in range(len(parts), -1, -1)]


def _prefixes(name: str) -> Iterator[str]:
    end = 0
    for _ in range(_DEPTH + 1):
        yield name[:end]
        wrapper = next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper, end)), None)
        if wrapper is None:
            return
        end += len(wrapper)
