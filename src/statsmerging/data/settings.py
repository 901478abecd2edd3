"""From a data set as it is published to a task: classes by name, and three splits.

Where the files lie is not known here (``local_folder``, ``hugging_face``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from statsmerging.data.corruptions.kinds import CONSTANTS
from statsmerging.data.suites import Split
from statsmerging.settings import Settings

if TYPE_CHECKING:
    from statsmerging.data.suites import Split
from pydantic import (
    DirectoryPath,
)

from statsmerging.store.received import is_plain_name


@dataclass(frozen=True)
class DatasetAddress:
    """Which columns and splits of a data set make the task, where they are not obvious.

    Attributes:
        subset: name of a configuration, where the data set has several.
        image: the image column; ``None`` where there is only one.
        label: the label column; ``None`` where it is called so or is the only one of classes.
        classes: class names in label order, where the label column holds bare numbers.
        splits: our split → the data set's name for it, where it is not an obvious one.
    """

    subset: str | None = None
    image: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    splits: Mapping[Split, str] = field(default_factory=dict)


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


class CorruptionSettings(Settings):
    """A kind of corruption, its severity, and the images it reaches. Never training images.

    Attributes:
        kind: what is done to an image; ``none`` does nothing.
        severity: 1 (mild) to 5.
        constants: the benchmark whose numbers the severities stand for.
        protocol: ``adapt_and_test`` corrupts the validation images, from which coefficients are
            learned and hyper-parameters chosen, and the test images; ``test_only`` the latter.
        tasks: whose images; ``None`` means all tasks.
        seed: of what is drawn at random. The seed of the merging step has no part in it, so that
            all its seeds see the same images.
    """

    kind: Literal[
        "none",
        "motion_blur",
        "impulse_noise",
        "gaussian_noise",
        "pixelate",
        "pixelate_cifar32",
        "spatter",
        "contrast",
        "jpeg_compression",
    ] = "none"
    severity: int = Field(default=2, ge=1, le=5)
    constants: Literal["cifar10_c", "imagenet_c"] = "cifar10_c"
    protocol: Literal["adapt_and_test", "test_only"] = "adapt_and_test"
    tasks: list[str] | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_defined(self) -> Self:
        if self.kind != "none" and self.kind not in CONSTANTS[self.constants]:
            raise ValueError(f"{self.constants} does not define {self.kind}")
        return self

    @property
    def label(self) -> str:
        """The corruption as it stands in results and tables."""
        if self.kind == "none":
            return self.kind
        on = [] if self.tasks is None else [f"on {' '.join(self.tasks)}"]
        return ", ".join([f"{self.kind} {self.severity}", self.constants, self.protocol, *on])

    def reaches(self, task: str, split: Split) -> bool:
        """Whether images of this split of a task are corrupted."""
        splits = ("test",) if self.protocol == "test_only" else ("validation", "test")
        return (
            self.kind != "none" and split in splits and (self.tasks is None or task in self.tasks)
        )


#: Nothing is corrupted.
CLEAN = CorruptionSettings()


def _plain(name: str) -> str:
    """Names of methods and of a catalogue's tasks become parts of the names of files."""
    if not is_plain_name(name):
        raise ValueError("no plain name: letters, digits and _ . + -, the first a letter or digit")
    return name


def _of_one_folder(name: str) -> str:
    """Names of tasks are those of folders, and become parts of the names of files."""
    if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise ValueError("no name of a folder or file")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]


TaskName = Annotated[str, AfterValidator(_of_one_folder)]


class SuiteSettings(Settings):
    """Which tasks, and where their images are."""

    name: str
    kind: Literal["embedded", "folder", "hub"]
    root: DirectoryPath | None
    tasks: list[TaskName] | None
    unseen: list[TaskName]
    splits: dict[str, list[TaskName]]
    split: str | None
    first: int | None = Field(ge=2)
    image: str | None = None
    label: str | None = None
    catalogue: dict[PlainName, CatalogueEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _split_is_known(self) -> Self:
        if self.split is not None and self.split not in self.splits:
            known = ", ".join(self.splits) or "none (suite.splits is empty)"
            raise ValueError(f"split={self.split}: choose one of {known}")
        return self


class LearningSettings(Settings):
    """Which images the learner learns from."""

    split: Literal["validation", "test"]
    images: PositiveInt | None
    seed: int = Field(ge=0)
