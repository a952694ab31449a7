"""A free run whose steps are spans on a timeline: each a round of its own, numbered as the node counts its steps."""

from collections.abc import Callable
from time import perf_counter_ns

from torch import Tensor

from decentral.timeline import Category, Timeline
from decentral.transport.driver import FreeRun, Step


class TracedRun(FreeRun):
    """Hands on what a driver asks of a free run of one node.

    Args:
        run: that is watched.
        watched: makes of a step one that notes what it does.
    """

    def __init__(self, run: FreeRun, timeline: Timeline, watched: Callable[[Step], Step]) -> None:
        self._run, self._timeline, self._watched = run, timeline, watched
        self._open: tuple[Category, int] | None = None  # what goes on, and since when

    def _begin(self, category: Category) -> None:
        self.note()
        self._open = category, perf_counter_ns()

    def note(self) -> None:
        """What went on is over; a step that the end of the run cut short, too."""
        if self._open is not None:
            self._timeline.add(*self._open, perf_counter_ns())
            self._open = None

    def begin(self, node: int, now_s: float) -> Step | None:
        step = self._run.begin(node, now_s)
        if step is None:
            return None
        self._timeline.begin_round(self._run.steps_made(node))
        self._begin("round")
        return self._watched(step)

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        self.note()
        self._run.end(node, loss, now_s)

    def serve(self, node: int) -> Step:
        self._begin("serve")
        return self._watched(self._run.serve(node))

    def look_s(self) -> float:
        return self._run.look_s()

    def look(self, now_s: float) -> None:
        self._run.look(now_s)

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:
        return self._run.rejoin(node, now_s)

    def steps_made(self, node: int) -> int:
        return self._run.steps_made(node)

    @property
    def at_s(self) -> float:
        return self._run.at_s

    @at_s.setter
    def at_s(self, at_s: float) -> None:
        self._run.at_s = at_s

    @property
    def over_s(self) -> float:
        return self._run.over_s

    @property
    def is_timed(self) -> bool:
        return self._run.is_timed
