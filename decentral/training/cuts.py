"""A free run is cut into segments, and a cut is where all nodes can be checkpointed together.

A segment ends as a free run does: each node ends the step that it is at and answers others, until all have come so far
and nothing that was sent is under way. What is left of a node then is its State and its course.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from decentral.errors import ConfigError
from decentral.training.albums import Kept
from decentral.training.checkpoint import Snapshot
from decentral.training.packing import unpack

Snapshots = Callable[[], Mapping[int, Snapshot]]
"""Takes a snapshot of each hosted node."""


class Cuts:
    """Where a free run is cut: nowhere, but for its end.

    Attributes:
        every: steps of each node in a segment.
        every_s: seconds of the run's clock in a segment.
    """

    every: int | None = None
    every_s: float | None = None

    def begin(self, snapshots: Snapshots) -> None:
        """The first segment is about to begin."""

    def is_wanted(self) -> bool:
        """Whether the segment is to end before its time; asked for between any two steps."""
        return False

    def at(self, round: int, is_last: bool, snapshots: Snapshots) -> None:
        """The run is cut here; not on the training clock. It may end the run by an exception.

        Args:
            round: steps of the mean node so far.
            is_last: whether the run is over.
        """


@dataclass
class Course:
    """What a node carries over a cut beside its State."""

    steps: int  # made so far
    ended_s: float  # the last of them
    row: int  # of evaluations, that it has kept last
    loss: Tensor | None  # of its last step
    kept: dict[int, Kept]  # rows that others have not kept yet
    clock: Any  # what a simulator remembers of it


def course_of(snapshot: Snapshot) -> Course:
    """A node's course.

    Raises:
        ConfigError: it was written by another program.
    """
    course = unpack(snapshot.course, snapshot.tensors, None)
    if not isinstance(course, Course):
        raise ConfigError("the checkpoint is of a method whose nodes have rounds in common, and this one's have none")
    return course
