"""The waist: an algorithm asks by awaiting effects, a driver answers them.

An algorithm is a frozen config with `init(x, peer) -> State` and `async def step(state, peer) -> loss`. Its only way
to the world outside its node is to `await` one of the effects below, most readably through the methods of `Peer`. The
vocabulary is closed: a driver answers from this list and refuses by name what it cannot answer, so one algorithm text
runs on all that can.

Answers (gradients, received payloads) live until the step ends, those of a letter until the next one: clone what State
keeps. What was received must not be written to: on one host it is the neighbor's own memory. What is posted must not
change before it is collected.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from decentral.fused import is_fusible, sum_into
from decentral.seeding import integer_seed
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


class Arrival(NamedTuple):
    payload: Payload
    age: int  # steps of the sender since it was sent


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
class Receive(Effect[Letter]):
    """Wait for one letter from any neighbor, sent in this round or an earlier one.

    Of one neighbor they come in the order in which it sent them; of several, in any. A method whose nodes send letters
    does not exchange.
    """

    kinds: tuple[Payload, ...]  # as of Send


@dataclass(frozen=True, slots=True, eq=False)
class Poll(Effect[Mapping[int, Arrival]]):
    """What has arrived since I last looked, each with its age: asynchronous methods."""


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


class Block(NamedTuple):
    """One parameter tensor inside the flat vector."""

    name: str
    shape: tuple[int, ...]
    start: int

    def of(self, flat: Tensor) -> Tensor:
        """This block of `flat: (d,)`, as a view of its own shape."""
        return flat[self.start : self.start + torch.Size(self.shape).numel()].view(self.shape)


Layout = Sequence[Block]
"""The parameter tensors of the model in the order in which they lie in the flat vector."""


@dataclass(slots=True)
class Peer:
    """All that a node may know, and the effects as methods.

    Args:
        node: this node's number, 0..nodes-1.
        nodes: how many nodes there are.
        rows: this node's row of the mixing matrix, for each turn of the topology's schedule.
        layout: where each parameter tensor lies in the flat vector.
        seed: the run's seed; `generator` derives this node's streams from it.
        static: whether the row is the same in every turn; where that is not known, it may change.
    """

    node: int
    nodes: int
    rows: Callable[[int], Row]
    layout: Layout = ()
    seed: int = 0
    round: int = 0
    static: bool = False

    def row(self, turn: int | None = None) -> Row:
        """My row of the mixing matrix in a turn of the schedule; the round's own unless given."""
        return self.rows(self.round if turn is None else turn)

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh generator, seeded by (seed, node, purpose)."""
        return torch.Generator().manual_seed(integer_seed(self.seed, self.node, purpose))

    async def gradient(self, at: Tensor) -> LossAndGradient:
        """The loss `()` and flat gradient `(d,)` of my next minibatch at `at: (d,)`."""
        return await Gradient(at)

    async def exchange(self, payload: Payload, turn: int | None = None) -> Mapping[int, Payload]:
        """Send `payload` to whom I send in this turn, and receive from this turn's sources."""
        row = self.row(turn)
        return await Exchange(Messages.alike(payload, row.to, row.sources))

    async def post(self, payload: Payload, turn: int | None = None) -> Ticket:
        """Begin such an exchange; `collect` finishes it."""
        row = self.row(turn)
        return await Post(Messages.alike(payload, row.to, row.sources))

    async def exchange_each(
        self, payloads: Mapping[int, Payload], turn: int | None = None, *, like: Payload | None = None
    ) -> Mapping[int, Payload]:
        """Send each node that I send to in this turn a payload of its own, and receive from this turn's sources.

        Args:
            payloads: by receiver, of the same shapes and dtypes at all nodes.
            turn: of the schedule.
            like: a payload of these shapes and dtypes; needed where a node receives and does not send, and there left
                alone as what is sent.

        Raises:
            ValueError: not exactly this turn's receivers, or nothing tells the shape of what comes.
        """
        return await Exchange(self._each(payloads, turn, like))

    async def post_each(
        self, payloads: Mapping[int, Payload], turn: int | None = None, *, like: Payload | None = None
    ) -> Ticket:
        """Begin such an exchange; `collect` finishes it."""
        return await Post(self._each(payloads, turn, like))

    def _each(self, payloads: Mapping[int, Payload], turn: int | None, like: Payload | None) -> Messages:
        row = self.row(turn)
        if payloads.keys() != {*row.to}:
            raise ValueError(
                f"node {self.node} has payloads for {sorted(payloads)} and sends to {[*row.to]} in this turn; "
                "required: one for each of these"
            )
        if like is None:
            like = next(iter(payloads.values()), None)
        if like is None and row.sources:
            raise ValueError(
                f"node {self.node} receives from {[*row.sources]} in this turn and sends to nobody, so nothing tells "
                "the shapes of what comes; give exchange_each or post_each a payload like it"
            )
        return Messages(dict(payloads), row.sources, like or ())

    async def collect(self, ticket: Ticket) -> Mapping[int, Payload]:
        return await Collect(ticket)

    async def all_reduce(self, x: Tensor, among: tuple[int, ...] | None = None) -> Tensor:
        """The mean of `x: (d,)` over all nodes, for centralized baselines; or among the nodes of my group."""
        return await AllReduce(x, among)

    async def gather(self, payload: Payload) -> Mapping[int, Payload]:
        """All nodes' payloads, by node in ascending order, for centralized methods that compress."""
        return await Gather(payload)

    async def send(self, to: int, payload: Payload, kinds: tuple[Payload, ...]) -> None:
        """Send a letter of one of `kinds` to a neighbor, without waiting until it is there."""
        await Send(to, payload, kinds)

    async def receive(self, kinds: tuple[Payload, ...]) -> Letter:
        """The next letter that a neighbor sends to this node."""
        return await Receive(kinds)

    async def mix(self, x: Tensor, turn: int | None = None) -> Tensor:
        """One gossip step: `sum_j w_ij x_j`, as a new tensor `(d,)`."""
        return self.combine(x, await self.exchange((x,), turn), turn)

    async def mix_(self, x: Tensor, turn: int | None = None) -> Tensor:
        """One gossip step in place: `x <- sum_j w_ij x_j`; x may have other memory then, and old views of it do not."""
        await Mix(x, self.row(turn))
        return x

    def combine(self, x: Tensor, received: Mapping[int, Payload], turn: int | None = None) -> Tensor:
        """`sum_j w_ij x_j` of my own `x: (d,)` and the first tensor of each received payload, as a new tensor."""
        vectors = first_tensors(self.node, x, received)
        return weighted_sum(self.row(turn).weights, vectors, out=torch.empty_like(x))

    def drift(self, x: Tensor, received: Mapping[int, Payload], turn: int | None = None, *, out: Tensor) -> Tensor:
        """`sum_j w_ij x_j - x_i` in one pass: what mixing would change of my `x: (d,)`, written into `out: (d,)`."""
        weights = dict(self.row(turn).weights)
        weights[self.node] -= 1
        return weighted_sum(weights, first_tensors(self.node, x, received), out)


def first_tensors(node: int, own: Tensor, received: Mapping[int, Payload]) -> dict[int, Tensor]:
    """My own vector and the first tensor of each received payload, by node."""
    return {node: own} | {sender: payload[0] for sender, payload in received.items()}


def weighted_sum(weights: Mapping[int, float], vectors: Mapping[int, Tensor], out: Tensor) -> Tensor:
    """`out <- sum_j weights[j] vectors[j]`, summed in ascending j, so every driver gets the same bits.

    Args:
        weights: one weight per node.
        vectors: one `(d,)` vector for each of the weights' nodes.
        out: `(d,)`; may be one of the vectors.
    """
    if out.is_meta:  # a dry run has no numbers
        return out
    ordered = sorted(weights.items())
    tensors = [vectors[j] for j, _ in ordered]
    if is_fusible([out, *tensors]):
        sum_into(out, [weight for _, weight in ordered], tensors)
        return out
    total = tensors[0] * ordered[0][1]
    for (_, weight), tensor in zip(ordered[1:], tensors[1:], strict=True):
        total.add_(tensor * weight)
    return out.copy_(total)
