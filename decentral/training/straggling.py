"""Nodes of real processes that are made slower: after its gradient a slow node sleeps for as long as is missing.

It sleeps and does not compute: where there are more nodes than cores, a node that burns one would slow the others too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, sleep, thread_time
from typing import NamedTuple

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
        self._step: _Begun | None = None
        self._stretch = 1.0  # what each second of work is made into before it is slowed, by the last step of DDP

    @contextmanager
    def slow(self, clock: Callable[[], float]) -> Iterator[None]:
        """Make what is done within it take longer; `clock` gives the seconds that it takes by itself."""
        began_s, clocked_s = perf_counter(), clock()
        if self._first_s is None:
            self._first_s = began_s
        yield
        self._sleep(began_s, max(clock() - clocked_s, self._least_s))

    def _sleep(self, began_s: float, work_s: float) -> None:
        """Until so much work is done that was begun then."""
        assert self._first_s is not None
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

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within it a step of DDP is slower, which waits for others inside of its backward pass: as many times as this
        thread's CPU time says that it takes.
        """
        began = self._step = _Begun(perf_counter(), thread_time())
        with self.slow(thread_time):
            yield
        self._step = None
        self._stretch = max(self._least_s / max(thread_time() - began.clocked_s, 1e-9), 1.0)

    def reached(self) -> None:
        """A part of the step's gradient is there, and would be as late as the step is slow: others wait for it."""
        if self._step is not None:
            self._sleep(self._step.at_s, (thread_time() - self._step.clocked_s) * self._stretch)


class _Begun(NamedTuple):
    """When a step began, by the wall and by its thread's CPU time."""

    at_s: float
    clocked_s: float
