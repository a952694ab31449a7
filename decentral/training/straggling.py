"""Nodes of real processes that are made slower: after its gradient a slow node sleeps for as long as is missing.

It sleeps and does not compute: where there are more nodes than cores, a node that burns one would slow the others too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter, sleep, thread_time

import torch
from torch import Tensor

from decentral.peer import LossAndGradient
from decentral.transport.clock.spells import Slowed, computed_at_s
from decentral.transport.driver import GradientAt


class Straggling:
    """How slow one node is.

    Args:
        slowed: when, and by how much, in seconds from its first gradient on.
        least_s: what a gradient takes at least, before it is slowed.
    """

    def __init__(self, slowed: Sequence[Slowed], least_s: float = 0.0) -> None:
        self._slowed, self._least_s = slowed, least_s
        self._first_s: float | None = None

    @contextmanager
    def slow(self, clock: Callable[[], float]) -> Iterator[None]:
        """Make what is done within it take longer; `clock` gives the seconds that it takes by itself."""
        began_s, clocked_s = perf_counter(), clock()
        if self._first_s is None:
            self._first_s = began_s
        yield
        work_s = max(clock() - clocked_s, self._least_s)
        until_s = self._first_s + computed_at_s(began_s - self._first_s, work_s, self._slowed)
        sleep(max(until_s - perf_counter(), 0.0))

    def gradient(self, gradient: GradientAt) -> GradientAt:
        """The same gradients, slower: as many times as the wall clock says that each takes."""

        def slowed(at: Tensor) -> LossAndGradient:
            with self.slow(perf_counter):
                answer = gradient(at)
                if at.is_cuda:
                    torch.cuda.synchronize(at.device)
            return answer

        return slowed

    def step(self) -> AbstractContextManager[None]:
        """Within it a step of DDP is slower, which waits for others inside of its backward pass: as many times as this
        thread's CPU time says that it takes.
        """
        return self.slow(thread_time)
