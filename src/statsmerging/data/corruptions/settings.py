"""Which corruption the images of an experiment suffer, and which of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from statsmerging.data.corruptions.constants import CONSTANTS
from statsmerging.records.settings import Settings

if TYPE_CHECKING:
    from statsmerging.data.suites import Split


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
