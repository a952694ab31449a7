"""The waist: an algorithm asks by awaiting effects, a driver answers them.

An algorithm is a frozen config with `init(x, peer) -> State` and `async def step(state, peer) -> loss`. Its only way
to the world outside its node is to `await` one of the effects (`decentral.effects`), most readably through the methods
of `Peer`.

Answers (gradients, received payloads) live until the step ends, those of a letter until the next one, those of a push
until another of the same neighbor is polled: clone what State keeps longer. What was received must not be written to:
on one host it is the neighbor's own memory. What is posted must not change before it is collected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.effects import (
    GONE,
    LAST,
    AllReduce,
    Arrival,
    Collect,
    Effect,
    Exchange,
    Gather,
    Gradient,
    Letter,
    LossAndGradient,
    Messages,
    Mix,
    Now,
    Payload,
    Poll,
    Post,
    Push,
    Receive,
    Send,
    Ticket,
)
from decentral.fused import is_fusible, sum_into
from decentral.seeding import integer_seed
from decentral.topology.mixing import Row

__all__ = [
    "GONE",
    "LAST",
    "AllReduce",
    "Arrival",
    "Block",
    "Collect",
    "Effect",
    "Exchange",
    "Gather",
    "Gradient",
    "Layout",
    "Letter",
    "LossAndGradient",
    "Messages",
    "Mix",
    "Now",
    "Payload",
    "Peer",
    "Poll",
    "Post",
    "Push",
    "Receive",
    "Send",
    "Ticket",
    "first_tensors",
    "weighted_sum",
]


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
        round: the one under way; in a free run, where nodes have none in common, the node's own step.
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
        letter = await Receive(kinds)
        assert letter is not None
        return letter

    async def receive_if_any(self, kinds: tuple[Payload, ...]) -> Letter | None:
        """The next letter, None where none has come: for methods that do not wait."""
        return await Receive(kinds, wait=False)

    async def receive_until(self, until_s: float, kinds: tuple[Payload, ...]) -> Letter | None:
        """The next letter, None where none has come until then by my clock: asynchronous methods alone may ask."""
        return await Receive(kinds, until_s=until_s)

    async def push(self, payload: Payload, *, adds: bool = False, last: bool = False) -> None:
        """Hand `payload` to all that I send to, without waiting.

        Args:
            adds: each is added to those that the neighbor has not looked at, where else it takes their place.
            last: whether I shall push no more.
        """
        await Push(dict.fromkeys(self.row().to, payload), payload, LAST if last else self.round, adds)

    async def poll(self, like: Payload, *, wait: bool = False) -> Mapping[int, Arrival]:
        """What neighbors have pushed since I last looked, by neighbor.

        Args:
            like: a payload of the shapes and dtypes of what comes.
            wait: until there is something.
        """
        return await Poll(like, wait)

    async def now(self) -> float:
        """Seconds since the run began, virtual or real; asynchronous methods alone may ask."""
        return await Now()

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
