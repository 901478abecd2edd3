"""Small image classification tasks that are built from installed packages, without a download.

There are ten tasks of 32x32 colour images: eight to merge experts on (``SEEN``) and two to test
generalisation with (``UNSEEN``). A generic labelled set serves to pre-train a backbone. Real
pictures come from scikit-learn and scikit-image, fonts from matplotlib; the rest is drawn. Every
image depends on its task's name alone: two builds agree bit for bit.

Other modules use only the names listed here.
"""

from __future__ import annotations

from collections.abc import Callable

from .digits import build_digits, build_printed_digits, build_street_numbers
from .garments import build_garments
from .patterns import build_patterns
from .pretraining import pretraining_images
from .real_pictures import build_faces, build_microscopy, build_photographs, build_surfaces
from .task import EmbeddedTask, LabeledImages
from .traffic_signs import build_traffic_signs

__all__ = [
    "SEEN",
    "TASKS",
    "UNSEEN",
    "EmbeddedTask",
    "LabeledImages",
    "build_task",
    "pretraining_images",
]

_SEEN: dict[str, Callable[[], EmbeddedTask]] = {
    "digits": build_digits,
    "faces": build_faces,
    "surfaces": build_surfaces,
    "photographs": build_photographs,
    "street_numbers": build_street_numbers,
    "traffic_signs": build_traffic_signs,
    "patterns": build_patterns,
    "garments": build_garments,
}
_UNSEEN: dict[str, Callable[[], EmbeddedTask]] = {
    "printed_digits": build_printed_digits,
    "microscopy": build_microscopy,
}

SEEN: tuple[str, ...] = tuple(_SEEN)
UNSEEN: tuple[str, ...] = tuple(_UNSEEN)
TASKS: dict[str, Callable[[], EmbeddedTask]] = {**_SEEN, **_UNSEEN}


def build_task(name: str) -> EmbeddedTask:
    """Build a task by name; every call builds it anew.

    Raises:
        ValueError: there is no task of that name.
    """
    if name not in TASKS:
        raise ValueError(f"no embedded task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]()
