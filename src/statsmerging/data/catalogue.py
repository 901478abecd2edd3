"""What is known of published data sets: where they are, and how many images they must have."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from statsmerging.records.settings import Settings


def _on_the_hub(address: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", address):
        raise ValueError("is no address on the hub, OWNER/NAME")
    return address


class CatalogueEntry(Settings):
    """One data set of the hub.

    Attributes:
        id: ``OWNER/NAME`` on the hub.
        subset: name of a configuration, where the data set has several.
        image: the image column, where there are several.
        label: the class-label column, where there are several.
        classes: class names in label order, where the label column holds bare numbers.
        splits: our split → the data set's name for it, where it is not an obvious one.
        counts: images per split as published; a split that is not named is not checked.
        gigabytes: size of the download, for the message where it is missing.
    """

    id: Annotated[str, AfterValidator(_on_the_hub)]
    subset: str | None = None
    image: str | None = None
    label: str | None = None
    classes: list[str] | None = None
    splits: dict[Literal["train", "validation", "test"], str] = Field(default_factory=dict)
    counts: dict[Literal["train", "validation", "test"], PositiveInt] = Field(default_factory=dict)
    gigabytes: PositiveFloat
