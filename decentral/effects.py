"""The effects: all that a step may await, each with what it is answered with.

The vocabulary is closed: a driver answers from this list and refuses by name what it cannot answer, so one algorithm
text runs on all that can. Algorithms ask through the methods of `Peer`.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from decentral.topology.mixing import Row

T = TypeVar("T")

Payload = tuple[Tensor, ...]
"""What one message carries: tensors whose shapes and dtypes are known before the run, as a rule the same in all."""


@dataclass(frozen=True, slots=True, eq=False)
class Effect(Generic[T]):
    """A request to the driver. Awaiting it returns the driver's answer, of type T."""

    def __await__(self) -> "Generator[Effect[Any], T, T]":
        return (yield self)


class LossAndGradient(NamedTuple):
    loss: Tensor  # () mean loss of the minibatch
    gradient: Tensor  # (d,) flat gradient


class Ticket(NamedTuple):
    """What `Post` answers: the exchange that is under way, to be named by one `Collect`."""

    number: int


GONE = -1
"""The kind of the letter, without a payload, that says that its sender is dead; it comes once, to each neighbor.

It comes after all that came of the dead: where that had begun a later round than the node has, in that round.
"""


class Letter(NamedTuple):
    sender: int
    kind: int  # which of the kinds that the receiver named; or GONE, where the run survives deaths
    payload: Payload  # lives until the node's next Receive


LAST = -1
"""In place of the step with which something is pushed: its sender has made all of its steps, and pushes no more."""


class Arrival(NamedTuple):
    """What a neighbor has pushed."""

    payload: Payload  # lives until a Poll answers another of the same neighbor
    step: int  # the sender's own, when it pushed the newest part of this; or LAST
    at_s: float  # when that arrived, by my clock


@dataclass(frozen=True, slots=True, eq=False)
class Gradient(Effect[LossAndGradient]):
    """The loss and flat gradient of my next minibatch at the point `at`."""

    at: Tensor  # (d,)


class Messages(NamedTuple):
    """What a node sends in one exchange, and from whom it receives.

    One payload for several nodes, the same object, is encoded once. All payloads of an exchange have the same shapes
    and dtypes, whoever sends them.
    """

    to: Mapping[int, Payload]
    sources: tuple[int, ...]
    like: Payload  # what is received has its shapes and dtypes

    @classmethod
    def alike(cls, payload: Payload, to: tuple[int, ...], sources: tuple[int, ...]) -> "Messages":
        """The same payload to each of `to`."""
        return cls(dict.fromkeys(to, payload), sources, payload)

    @property
    def sent(self) -> list[Payload]:
        """The payloads that are sent to somebody, each once."""
        return [*{id(payload): payload for payload in self.to.values()}.values()]

    @property
    def offered(self) -> list[Payload]:
        """What must not change before it is collected: also what would have been sent if there were anybody."""
        return self.sent or [self.like]


@dataclass(frozen=True, slots=True, eq=False)
class Exchange(Effect[Mapping[int, Payload]]):
    """Send and receive: synchronous gossip. Answered by what came, by its sender."""

    messages: Messages


@dataclass(frozen=True, slots=True, eq=False)
class Post(Effect[Ticket]):
    """Begin an exchange and go on at once: communication behind computation."""

    messages: Messages


@dataclass(frozen=True, slots=True, eq=False)
class Collect(Effect[Mapping[int, Payload]]):
    """Finish the exchange that `Post` began."""

    ticket: Ticket


@dataclass(frozen=True, slots=True, eq=False)
class Mix(Effect[None]):
    """One gossip step, `x <- sum_j w_ij x_j`, in place: x stays the same tensor, but its memory may move.

    A driver whose neighbors read x where it lies need not copy it: the sum goes to other memory, which x then has.
    """

    x: Tensor  # (d,)
    row: Row


@dataclass(frozen=True, slots=True, eq=False)
class Send(Effect[None]):
    """Send one letter to one neighbor and go on: tokens. The payload may change as soon as this is answered."""

    to: int
    payload: Payload
    kinds: tuple[Payload, ...]  # the shapes and dtypes of all letters of the run, the payload's among them


@dataclass(frozen=True, slots=True, eq=False)
class Receive(Effect[Letter | None]):
    """One letter from any neighbor, sent in this round or an earlier one.

    Of one neighbor they come in the order in which it sent them; of several, in any. A method whose nodes send letters
    does not exchange.
    """

    kinds: tuple[Payload, ...]  # as of Send
    wait: bool = True  # for one; else the answer is None where none has come
    until_s: float = inf  # how long to wait, by my clock, in free runs alone; the answer is None where none came


@dataclass(frozen=True, slots=True, eq=False)
class Push(Effect[None]):
    """Hand something to some neighbors and go on at once; each finds it when it next polls.

    There is one place for each neighbor, so that a push never waits and nothing piles up. What finds the one before it
    still there, not sent yet or not looked at, takes its place or, where it `adds`, is added to it, tensor by tensor: a
    model is worth having for the newest of it, and mass may be under way late, but not be lost. No push overtakes one
    before it. The payload may change as soon as this is answered. A method whose nodes push neither exchanges nor sends
    letters.
    """

    to: Mapping[int, Payload]  # the same object for several is copied once
    like: Payload  # what is received has its shapes and dtypes
    step: int  # my own, which the arrival names; or LAST
    adds: bool = False  # the same in all pushes of a run


@dataclass(frozen=True, slots=True, eq=False)
class Poll(Effect[Mapping[int, Arrival]]):
    """What neighbors have pushed and I have not looked at, in ascending order of them: asynchronous methods."""

    like: Payload  # as of Push
    wait: bool = False  # until there is something


@dataclass(frozen=True, slots=True, eq=False)
class Now(Effect[float]):
    """Seconds since the run began, by my clock, virtual or real: asynchronous methods."""


@dataclass(frozen=True, slots=True, eq=False)
class AllReduce(Effect[Tensor]):
    """The mean of `x` over all nodes: the centralized baselines, never the decentralized methods.

    Over some nodes, `among`, it is the inside of a group: each of them asks for it, and names the same.
    """

    x: Tensor  # (d,)
    among: tuple[int, ...] | None = None  # ascending; None for all


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Effect[Mapping[int, Payload]]):
    """All nodes' payloads, by node in ascending order, my own among them: centralized methods that compress.

    All nodes ask for it, with payloads of the same shapes and dtypes.
    """

    payload: Payload
