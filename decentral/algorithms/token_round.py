"""One round of a token method at one node: it hosts the tokens that come, and waits until all of them rest.

`tokens` says why a round ends as it does; here is what a node does in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.algorithm import State
from decentral.algorithms.custody import Custody
from decentral.algorithms.token import Route, Token
from decentral.peer import Letter, Payload, Peer
from decentral.topology.hops import uniform
from decentral.topology.population import Sightings
from decentral.topology.walks import Surroundings, key

TOKEN, NOTICE = range(2)
"""The kinds of letters."""


@dataclass(slots=True)
class Crowd:
    """What a node knows of tokens that fork and drop.

    Args:
        alive: their numbers, ascending, the same at all nodes between rounds.
        ever: how many there have been, so the number of the next one.
        loss: of the last round that had any visits.
        sightings: which tokens the node has seen, and when.
    """

    alive: list[int]
    ever: int
    loss: float
    sightings: Sightings


@dataclass(slots=True)
class TokenState(State):
    """A node's; `x` is the model that it has seen last."""

    held: dict[int, Token]  # by number, those that rest here
    custody: Custody | None = field(default=None, kw_only=True)  # where the run survives deaths
    crowd: Crowd | None = field(default=None, kw_only=True)  # what it knows of tokens whose number changes
    tally: float = field(default=0.0, kw_only=True)  # the node's own visits, where nodes keep the counts
    routes: list[Route] = field(default_factory=list, kw_only=True)  # of all tokens, where nodes work them out


class Walking(Protocol):
    """What a round needs to know of a method."""

    @property
    def tokens(self) -> int: ...
    @property
    def visits(self) -> int: ...
    @property
    def carries_counts(self) -> bool: ...
    @property
    def log_tallies(self) -> bool: ...
    def around(self, node: int) -> Surroundings: ...
    def counts(self) -> Tensor | None: ...
    def kinds(self, x: Tensor) -> tuple[Payload, ...]: ...
    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor: ...
    def count(self, counts: Tensor, visit: int, node: int) -> None: ...
    def tally_after(self, tally: float, visit: int) -> float: ...


def letters(carried: Sequence[Tensor], forks: bool = False) -> tuple[Payload, ...]:
    """The letters of a run, by kind: a token that carries these tensors, and the notice that one rests."""
    numbers, loss = torch.empty(6, dtype=torch.int64), torch.empty((), dtype=torch.float64)
    return (*carried, numbers[: 6 if forks else 5], loss), (numbers[: 5 if forks else 3], loss)


class Round:
    """A round that is under way at one node.

    Args:
        method: whose tokens walk.
        state: the node's; `held` has the tokens that rest here, at the end those of the next round.
        peer: the node's.
    """

    def __init__(self, method: Walking, state: TokenState, peer: Peer) -> None:
        self.method, self.state, self.peer = method, state, peer
        self.around = method.around(peer.node)
        self.kinds = method.kinds(state.x)
        self.losses: dict[int, float] = {}  # of the tokens of which the node has heard that they rest
        self.due = method.tokens * len(self.around.neighbors)  # notices that neighbors have still to send

    async def run(self) -> Tensor:
        """The mean loss `()` of the round's visits, the same at all nodes."""
        going, self.state.held = self.state.held, {}
        for _, token in sorted(going.items()):
            await self.host(token)
        while not self.is_over():
            await self.take(await self.peer.receive(self.kinds))
        self.state.held = dict(sorted(self.state.held.items()))
        return torch.tensor(self.mean_loss(), dtype=self.state.x.dtype)

    def mean_loss(self) -> float:
        """Of the round's visits."""
        losses = [loss for _, loss in sorted(self.losses.items())]
        return sum(losses) / len(losses)

    def is_over(self) -> bool:
        """Whether all tokens rest, and nothing more of this round is on its way to this node."""
        return not self.due and len(self.losses) == self.method.tokens

    async def take(self, letter: Letter) -> None:
        """Do what a letter asks for."""
        if letter.kind == TOKEN:
            await self.host(Token.arrived(letter, self.peer.node, self.method.carries_counts))
        else:
            self.due -= 1
            await self.hear(letter.payload)

    async def host(self, token: Token) -> None:
        """Visit after visit, until the token goes on or its budget is used up."""
        while token.visit < (self.peer.round + 1) * self.method.visits:
            to = await self.visit(token)
            if to != self.peer.node:
                await self.pass_on(token, to)
                return
            await self.stay(token)
        await self.rest(token)

    async def visit(self, token: Token) -> int:
        """One visit here; returns where the token goes next."""
        loss = await self.method.visit(self.state, token, self.peer)
        token.loss += 0.0 if loss.is_meta else float(loss)
        self.count(token)
        token.visit += 1
        to = await self.next_node(token)
        token.came_from = self.peer.node
        return to

    async def pass_on(self, token: Token, to: int) -> None:
        """The token's next visit is to another node."""
        await self.peer.send(to, token.payload(), self.kinds)

    async def stay(self, token: Token) -> None:
        """The token's next visit is to this node again."""

    def count(self, token: Token) -> None:
        """Note the visit that a token has just made."""
        if token.counts is not None:
            self.method.count(token.counts, token.visit, self.peer.node)

    async def next_node(self, token: Token) -> int:
        """Where a token goes for its next visit."""
        return onward(self.around, token, self.peer.seed)

    async def rest(self, token: Token) -> None:
        """Keep a token until the next round, and tell so."""
        self.state.held[token.number] = token
        numbers = self.notice(token)
        mean, token.loss = token.loss / self.method.visits, 0.0
        await self.hear((numbers, torch.tensor(mean, dtype=torch.float64)))

    def notice(self, token: Token) -> Tensor:
        """What is said of a token that rests, but for its loss."""
        return torch.tensor([token.number, token.visit, token.generation])

    async def hear(self, notice: Payload) -> None:
        """A token rests; who did not know it tells the neighbors."""
        numbers, loss = notice
        if (number := int(numbers[0])) in self.losses:
            return
        self.losses[number] = float(loss)
        for neighbor in self.around.neighbors.tolist():
            await self.peer.send(neighbor, notice, self.kinds)


def onward(around: Surroundings, token: Token, seed: int) -> int:
    """Where a token that has visited a node goes next, by the counts that it carries."""
    counts = None if token.counts is None else token.counts.numpy()[around.whose]
    return around.next_node(draw(token, seed), counts, token.came_from)


def draw(token: Token, seed: int) -> float:
    """The number in [0, 1) that decides where a token goes for its next visit."""
    return float(uniform(_key(seed, token.number), token.visit))


@lru_cache(maxsize=4096)
def _key(seed: int, token: int) -> np.uint64:
    return key(seed, token)
