"""What a row of the results costs: numbers that every run repeats, and measurements of this run."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

#: Parts of the work on a row, in their order: ``bank``, building the task vectors; ``statistics``
#: of the weights, with their singular directions; ``evidence``, the teachers' labels, Gram matrices
#: or Fisher information; ``learning``; ``merging``, weights from coefficients or a closed form;
#: ``tuning``, all other values of the grid and the agreement of all; ``scoring``, on test images
#: and by agreement. The first three are shared: done once in a run, told in every row that needs
#: them.
Phase = Literal["bank", "statistics", "evidence", "learning", "merging", "tuning", "scoring"]

#: Whose peak a memory is: that of the process, mapped files included, or of CUDA's allocator.
MemoryOf = Literal["host", "cuda"]

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Addable(BaseModel):
    """Strict types; entries of a later version are kept, so that no record loses any."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class Cost(_Addable):
    """What a method needs besides the test images; the same in every run of one config.

    Numbers are those of the method alone and from the start: what another row, the cache or a run
    that was killed has done already counts too.

    Attributes:
        images: learning images seen, each as often as it is seen: in all steps of the learning, or
            to collect evidence.
        forward_passes: of a backbone, in images; those of the teachers' labels are among them.
        backward_passes: of a backbone, in images.
        parameters: numbers that were learned, by all optimisers together.
    """

    images: Count = 0
    forward_passes: Count = 0
    backward_passes: Count = 0
    parameters: Count = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTS})


_COUNTS = tuple(Cost.model_fields)


class Measured(_Addable):
    """What the work on a row took in this run; other in every run.

    Attributes:
        seconds: ``Phase`` → wall clock; what the run had made before for another row included.
        memory: ``Phase`` → highest memory above that at its beginning, in bytes; not known of
            several processes, nor on systems that do not tell it.
        memory_of: whose memory; ``None`` if it is not known.
        cached: phases in which something was read that an earlier run had left in the cache.
        resumed: whether a killed run was continued. The seconds of its learning up to the last
            checkpoint are included, its memory is not.
    """

    seconds: dict[str, Seconds] = {}
    memory: dict[str, Count] = {}
    memory_of: MemoryOf | None = None
    cached: list[str] = []
    resumed: bool = False

    def __add__(self, other: Measured) -> Measured:
        """Seconds of both, and the higher memory; phases in their order."""
        both = {*self.seconds, *other.seconds, *self.memory, *other.memory}
        phases = [phase for phase in get_args(Phase) if phase in both]
        memories = {
            phase: [each.memory[phase] for each in (self, other) if phase in each.memory]
            for phase in phases
        }
        return Measured(
            seconds={
                phase: self.seconds.get(phase, 0.0) + other.seconds.get(phase, 0.0)
                for phase in phases
            },
            memory={phase: max(found) for phase, found in memories.items() if found},
            memory_of=self.memory_of or other.memory_of,
            cached=[phase for phase in phases if phase in (*self.cached, *other.cached)],
            resumed=self.resumed or other.resumed,
        )
