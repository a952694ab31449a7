"""What a simulation remembers of a node between two segments of a free run: counts, from which all draws follow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkCourse:
    """One direction of a link."""

    sent: int  # transfers so far
    numbers: int  # messages that were numbered
    free_s: float  # from when on it takes the next
    draws: int  # of what decides over losses


@dataclass(frozen=True)
class NodeCourse:
    """A node and what it sends over."""

    gradients: int  # begun
    links: dict[int, LinkCourse]  # by receiver
    up_s: float  # from when on its connection sends the next
    down_s: float  # when that has taken in the last
    is_down: bool
    logged: int  # length of the event log
