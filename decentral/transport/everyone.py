"""All ranks together, or some: for centralized methods, for measurement between rounds, and for the inside of groups.

Decentralized methods never bring all ranks together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from torch import Tensor
from torch.distributed.distributed_c10d import AllgatherOptions, AllreduceOptions, BroadcastOptions  # type: ignore[attr-defined]

from decentral.transport.gloo import told
from decentral.transport.links import BrokenLinkError


class Circle(ABC):
    """Some ranks that add up vectors, each taking part in the same order.

    All operations raise BrokenLinkError where another rank has gone or did not come within `timeout_s` seconds.
    """

    name: str
    place: str = "cpu"
    """The type of device whose memory it adds up."""

    @abstractmethod
    def add_up(self, x: Tensor, timeout_s: float) -> None:
        """`x: (d,)` <- the sum over these ranks, in place; in which order is the engine's affair."""

    def settle(self, timeout_s: float) -> None:  # noqa: B027  most engines leave nothing under way
        """Wait until all sums are there, where they are made behind the host."""

    @abstractmethod
    def close(self) -> None:
        """Give the connections back."""


class Everyone(Circle):
    """A circle that measures and starts a run, too.

    Attributes:
        members: the ranks that the last operation brought together; None where it is always all.
        noticed: what answers whom this rank's own links know to be dead; engines of survivors ask it.
    """

    members: tuple[int, ...] | None = None
    noticed: Callable[[], Iterable[int]] = tuple

    @abstractmethod
    def gather(self, own: Tensor, timeout_s: float, out: Tensor | None = None) -> Tensor:
        """Each of these ranks' `(k,)` numbers, in order of ranks: `(ranks, k)`.

        Args:
            own: in main memory; as many, of the same dtype, at each rank.
            out: where they go, contiguous; new memory unless given.
        """

    @abstractmethod
    def broadcast(self, x: Tensor, timeout_s: float) -> None:
        """`x` <- that of the first of these ranks, in place."""

    def leave(self) -> None:
        """Take part in nothing more, in peace: before `close`, and not where this rank has failed."""


class GlooEveryone(Everyone):
    """One gloo group of these ranks, made when it is first needed: it connects every rank to every other.

    Args:
        make: makes the process group.
        size: how many ranks.
    """

    name = "gloo"

    def __init__(self, make: Callable[[], Any], size: int) -> None:
        self._make, self._size = make, size
        self._group: Any = None

    def add_up(self, x: Tensor, timeout_s: float) -> None:
        self._perform(AllreduceOptions(), timeout_s, lambda group, how: group.allreduce([x], how))

    def gather(self, own: Tensor, timeout_s: float, out: Tensor | None = None) -> Tensor:
        rows = own.new_empty((self._size, *own.shape)) if out is None else out
        self._perform(AllgatherOptions(), timeout_s, lambda group, how: group.allgather([[*rows]], [own], how))
        return rows

    def broadcast(self, x: Tensor, timeout_s: float) -> None:
        self._perform(BroadcastOptions(), timeout_s, lambda group, how: group.broadcast([x], how))

    def _perform(self, options: Any, timeout_s: float, begin: Callable[[Any, Any], Any]) -> None:
        # Not only the wait: an operation that goes on after it holds up the end of its group, and so `close`.
        options.timeout = patience = timedelta(seconds=timeout_s)
        try:
            if self._group is None:
                self._group = self._make()
            begin(self._group, options).wait(patience)
        except RuntimeError as error:
            raise BrokenLinkError(told(error)) from error

    def close(self) -> None:
        self._group = None
