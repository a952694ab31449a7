"""A dry run of one node: its effects are answered without data, neighbors or memory, and what it would send is counted.

So the bytes of any algorithm are known before the run, from the same text that will run, and so is what each round
sends behind the computation of a gradient.
"""

from collections import deque
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from decentral.peer import (
    AllReduce,
    Collect,
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
from decentral.transport.driver import Finished, Step, all_reduce_bytes, gather_bytes, kind_of, proceed
from decentral.transport.frames import HEADER_BYTES, payload_bytes


@dataclass(slots=True)
class Exchanged:
    """One exchange of a round in which it began."""

    receivers: int  # of its messages
    sources: int  # of those that it waits for
    frame_bytes: int  # of each message, header included
    messages: int  # that differ: one message to all is encoded once
    behind: int | None = None  # gradients computed between its beginning and its end; None: nobody waits for its end


@dataclass(frozen=True, slots=True)
class Reduced:
    """A mean over nodes by all-reduce."""

    vector_bytes: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Gathered:
    """A message of each node at every node."""

    frame_bytes: int  # of each message, header included
    nodes: int


@dataclass(slots=True)
class Round:
    """What a node does in one round, as far as it takes time."""

    gradients: int = 0
    exchanges: list[Exchanged] = field(default_factory=list)
    reductions: list[Reduced] = field(default_factory=list)
    gathers: list[Gathered] = field(default_factory=list)

    @property
    def bytes_sent(self) -> int:
        """To neighbors; reductions and gathers are not among them."""
        return sum(exchange.receivers * exchange.frame_bytes for exchange in self.exchanges)


class DryNode:
    """Answers the effects of one node's steps on tensors of the meta device, which hold no numbers.

    Args:
        nodes: how many nodes the run will have.
    """

    def __init__(self, nodes: int) -> None:
        self.bytes_sent = 0
        self.messages_sent = 0
        self.largest_frame = 0  # bytes, header included
        self.rounds: list[Round] = []
        self._nodes = nodes
        self._gradients = 0  # in all rounds
        self._echoes: deque[Letter] = deque()
        self._posted: dict[Ticket, tuple[Messages, Exchanged, int]] = {}

    def advance(self, step: Step) -> None:
        """Run one step to its end."""
        answer: object = None
        self.rounds.append(Round())
        while not isinstance(asked := proceed(step, answer), Finished):
            match asked:
                case Gradient(at=at):
                    self._gradients += 1
                    self.rounds[-1].gradients += 1
                    answer = LossAndGradient(torch.empty((), device="meta"), torch.empty_like(at))
                case Exchange(messages=messages):
                    answer = self._collect(self._post(messages))
                case Post(messages=messages):
                    answer = self._post(messages)
                case Collect(ticket=ticket):
                    answer = self._collect(ticket)
                case Mix(x=x, row=row):
                    self._collect(self._post(Messages.alike((x,), row.to, row.sources)))
                    answer = None
                case AllReduce():
                    answer = self._all_reduced(asked)
                case Gather(payload=payload):
                    answer = self._gathered(payload)
                case Push(to=to, like=like):
                    self._sent(len(to), like)
                    answer = None
                case Poll():
                    answer = {}
                case Send(to=to, payload=payload):
                    self._sent(1, payload)
                    self._echoes.append(Letter(to, kind_of(payload, asked.kinds, to), payload))
                    answer = None
                case Receive(wait=False) | Receive(kinds=(_, *_)):  # whom it writes to writes the same to it
                    answer = self._received(asked)
                case Now():
                    answer = 0.0
                case _:
                    raise TypeError(f"a dry run does not answer {type(asked).__name__}")

    def _received(self, asked: Receive) -> Letter | None:
        if self._echoes:
            return self._echoes.popleft()
        if not asked.wait or asked.until_s < inf:
            return None
        return Letter(0, 0, asked.kinds[0])

    def _sent(self, receivers: int, payload: Payload) -> None:
        """Count messages whose end nobody waits for."""
        size = HEADER_BYTES + payload_bytes(payload)
        self.messages_sent += receivers
        self.bytes_sent += receivers * size
        self.largest_frame = max(self.largest_frame, size)
        self.rounds[-1].exchanges.append(Exchanged(receivers, 0, size, min(receivers, 1)))

    def _post(self, messages: Messages) -> Ticket:
        self.messages_sent += len(messages.to)
        size = HEADER_BYTES + payload_bytes(messages.like)
        exchange = Exchanged(len(messages.to), len(messages.sources), size, len(messages.sent))
        self.bytes_sent += exchange.receivers * size
        self.largest_frame = max(self.largest_frame, size)
        ticket = Ticket(len(self._posted))
        self.rounds[-1].exchanges.append(exchange)
        self._posted[ticket] = messages, exchange, self._gradients
        return ticket

    def _collect(self, ticket: Ticket) -> dict[int, Payload]:
        messages, exchange, gradients = self._posted[ticket]
        exchange.behind = self._gradients - gradients
        return dict.fromkeys(messages.sources, messages.like)

    def _all_reduced(self, asked: AllReduce) -> Tensor:
        together = self._nodes if asked.among is None else len(asked.among)
        self.bytes_sent += all_reduce_bytes(asked.x, together)
        self.rounds[-1].reductions.append(Reduced(asked.x.nbytes, together))
        return asked.x

    def _gathered(self, payload: Payload) -> dict[int, Payload]:
        self.bytes_sent += gather_bytes(payload, self._nodes)
        self.rounds[-1].gathers.append(Gathered(HEADER_BYTES + payload_bytes(payload), self._nodes))
        return dict.fromkeys(range(self._nodes), payload)
