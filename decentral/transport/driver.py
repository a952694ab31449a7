"""What a driver is: it hosts nodes, advances their steps and answers the effects they await."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from decentral.peer import AllReduce, Effect, LossAndGradient, Payload
from decentral.transport.frames import HEADER_BYTES, payload_bytes

Step = Coroutine[Any, Any, Tensor]
"""A node's step under way; its result is the minibatch loss `()`."""

GradientAt = Callable[[Tensor], LossAndGradient]
"""A node's answer to `Gradient`: the loss and flat gradient of its next minibatch at a point `(d,)`."""


@dataclass(frozen=True, slots=True)
class Finished:
    loss: Tensor


def proceed(step: Step, answer: object) -> Effect[Any] | Finished:
    """Advance a step to its next effect, or to its end.

    Raises:
        TypeError: the step awaited something that is not an effect.
    """
    try:
        asked = step.send(answer)
    except StopIteration as done:
        return Finished(done.value)
    except RuntimeError as error:
        if "no running event loop" not in str(error):
            raise
        raise TypeError(_not_an_effect(step, "an asyncio call")) from error
    if not isinstance(asked, Effect):
        step.close()
        raise TypeError(_not_an_effect(step, f"something that yields {asked!r}"))
    return asked


def _not_an_effect(step: Step, found: str) -> str:
    name = getattr(step, "__qualname__", "step")
    # A set: a dataclass with slots is a second class beside the one it was made from, which lingers for a while.
    effects = ", ".join(sorted({kind.__name__ for kind in Effect.__subclasses__()}))
    return f"{name} awaited {found}; a step may await effects only ({effects}), through the methods of its peer"


class FreeRun(ABC):
    """What a driver asks of a free run, in which each node steps at its own pace.

    Times are seconds since the run began, by the driver's clock.

    Attributes:
        at_s: when this segment of the run begins; its driver leaves here when all was through.
        courses: what a simulator remembers of each node from one segment to the next; None before the first.
    """

    at_s: float = 0.0
    courses: Mapping[int, Any] | None = None

    def steps_made(self, node: int) -> int:  # noqa: ARG002
        """How many steps a node has made in all segments so far."""
        return 0

    @abstractmethod
    def begin(self, node: int, now_s: float) -> Step | None:
        """A node's next step; None where it has made all of its steps, or all of this segment."""

    @abstractmethod
    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        """A node's step has come to its end, with the loss `()`."""

    @abstractmethod
    def serve(self, node: int) -> Step:
        """What a node does that has made its steps: answer others. It is closed once all have made theirs."""

    @abstractmethod
    def look_s(self) -> float:
        """When models are to be looked at next; infinite for never."""

    @abstractmethod
    def look(self, now_s: float) -> None:
        """Look at the hosted nodes' models, as they are then; a real process calls it between two steps."""

    @abstractmethod
    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:
        """A node that was down takes over a neighbor's model: the neighbor, and bytes; None where it has none."""

    @property
    def over_s(self) -> float:
        """When the time of the run is over; infinite where each node makes so many steps."""
        return inf

    @property
    @abstractmethod
    def is_timed(self) -> bool:
        """Whether it lasts for a time; then a node may be left waiting at the end. Else each makes all of its steps."""


class Driver(ABC):
    """Answers effects for the nodes it hosts: one in a real process, all of them in a simulator.

    `mean` and `gather` are for measurement between rounds; no algorithm can reach them.
    """

    hosted: tuple[int, ...]  # the nodes of this process, ascending
    bytes_sent: dict[int, int]  # by each hosted node so far, headers included

    @abstractmethod
    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        """Run one step of each hosted node to its end; returns each one's loss `()`."""

    def run_free(self, run: FreeRun) -> None:  # noqa: ARG002
        """Advance the hosted nodes' steps, each at its own pace, until all have made theirs and nothing is under way.

        What has come by then that a node has not looked at is dropped: who needs it looks while it serves.

        Raises:
            TypeError: this driver knows rounds alone.
        """
        raise TypeError(f"{type(self).__name__} has no free runs")

    def settle(self) -> None:  # noqa: B027  most drivers leave nothing under way
        """Wait until all that was begun on a GPU has ended there; before a clock stops or a value is read.

        Raises:
            LostNeighborError: a neighbor did not come in time, so that it never will.
        """

    def clock(self) -> float:
        """Seconds, from whenever, of the clock that training is timed by."""
        return perf_counter()

    @property
    @abstractmethod
    def living(self) -> tuple[int, ...]:
        """The nodes, ascending, that `mean` or `gather` brought together last: all, unless the run survived a death."""

    @abstractmethod
    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        """The mean over all living nodes of one vector `(d,)` each, the hosted ones given.

        Args:
            weights: by hosted node; then it is the sum of the vectors over the sum of the weights.
        """

    @abstractmethod
    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        """All nodes' lists of numbers, by node, from the hosted ones; all lists have one length; NaN for the dead.

        Args:
            patience_s: how much longer than in a round the others may take, since they are evaluating.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back links, threads and memory."""


class Watching(Driver):
    """Looks on as another driver works, and leaves to it all that measurement asks for."""

    def __init__(self, driver: Driver) -> None:
        self.hosted, self.bytes_sent = driver.hosted, driver.bytes_sent
        self._driver = driver

    @property
    def living(self) -> tuple[int, ...]:
        return self._driver.living

    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        return self._driver.mean(vectors, weights)

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        return self._driver.gather(values, patience_s)

    def settle(self) -> None:
        self._driver.settle()

    def close(self) -> None:
        self._driver.close()


class Simulator(Driver):
    """Hosts all nodes, so that what measurement asks for is here."""

    @property
    def living(self) -> tuple[int, ...]:
        return self.hosted

    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        total = total_of([vectors[node] for node in self.hosted])
        return total.div_(len(vectors) if weights is None else sum(weights.values()))

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:  # noqa: ARG002
        return [values[node] for node in self.hosted]


def total_of(vectors: list[Tensor]) -> Tensor:
    """Summed in ascending order of nodes."""
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total.add_(vector)
    return total


def mean_of(vectors: list[Tensor]) -> Tensor:
    """Summed in ascending order of nodes."""
    return total_of(vectors).div_(len(vectors))


def all_reduce_bytes(x: Tensor, nodes: int) -> int:
    """Bytes that each node sends in a ring all-reduce of `x`: 2 (n-1)/n of its size (the engine's own may differ)."""
    return round(2 * (nodes - 1) / nodes * x.nbytes)


def gather_bytes(payload: Payload, nodes: int) -> int:
    """Bytes that each node sends in a gather: n-1 frames, its own or, where the engine passes them on, others'."""
    return (nodes - 1) * (HEADER_BYTES + payload_bytes(payload))


def members(asked: AllReduce, node: int, nodes: int) -> tuple[int, ...]:
    """The nodes whose mean a node asked for.

    Raises:
        ValueError: it is not one of them, or they are not nodes in ascending order.
    """
    if asked.among is None:
        return tuple(range(nodes))
    if node not in asked.among or [*asked.among] != sorted({*asked.among} & {*range(nodes)}):
        raise ValueError(
            f"node {node} asked for the mean among {asked.among}; required: ascending nodes below {nodes}, and itself"
        )
    return asked.among


def versions(payload: Payload) -> tuple[int, ...]:
    """How often each tensor was written in place; unchanged versions mean that a posted payload was left alone."""
    return tuple([tensor._version for tensor in payload])


def copied_views(payload: Payload) -> Payload:
    """The payload, with copies of those tensors that are views."""
    return tuple(tensor.clone() if tensor._is_view() else tensor for tensor in payload)


def check_untouched(payload: Payload, posted: tuple[int, ...], node: int, sent: Payload) -> None:
    """Raise if a posted payload changed before it was collected: another transport would have sent half of each.

    Args:
        payload: as it is now.
        posted: its versions when it was posted.
        node: whose.
        sent: a copy made then, of the views in it at least. A write to another part of the tensor that they view counts
            as a write to them, so it is their numbers that decide.
    """
    for tensor, version, copy in zip(payload, posted, sent, strict=True):
        if tensor._version != version and not (tensor._is_view() and _same_bits(tensor, copy)):
            raise RuntimeError(
                f"node {node} changed a payload between Post and Collect; post a clone, or change it later"
            )


def _same_bits(tensor: Tensor, copy: Tensor) -> bool:
    one, other = (each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (tensor, copy))
    return torch.equal(one, other)


def check_alike(payload: Payload, like: Payload, sender: int, receiver: int) -> None:
    """Raise where two payloads of one exchange differ in shape or dtype: a real process would be killed by it."""
    if payload is not like and (found := _kinds(payload)) != (expected := _kinds(like)):
        raise RuntimeError(
            f"node {sender} sent {found} to node {receiver} in an exchange of {expected}; all payloads of an exchange "
            "must be tensors of the same shapes and dtypes"
        )


def _kinds(payload: Payload) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return [(tuple(tensor.shape), tensor.dtype) for tensor in payload]


def kind_of(payload: Payload, kinds: tuple[Payload, ...], node: int) -> int:
    """Which of the kinds of letters a payload is.

    Raises:
        RuntimeError: none; no node could receive it.
    """
    for number, kind in enumerate(kinds):
        if len(kind) == len(payload) and all(
            one.shape == other.shape and one.dtype == other.dtype for one, other in zip(kind, payload, strict=True)
        ):
            return number
    raise RuntimeError(
        f"node {node} sent a letter of {_kinds(payload)}, and the run's letters are {[_kinds(kind) for kind in kinds]}"
    )


def both_ways(node: int, ways: str = "sends letters and exchanges") -> RuntimeError:
    """What a driver raises where one method's nodes send letters and exchange, or push beside them."""
    return RuntimeError(f"node {node} {ways} in one run; on one link they would be taken for each other")
