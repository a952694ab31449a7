"""A round of tokens that fork where too few seem to live, drop where too many do, and may be lost.

`topology.population` says by what estimate. How the round still ends for all at once, with no node that counts tokens:

- Fates are decided at a round's start, where each token rests, by what the node has seen until then: so they are the
  same in every driver. A token has the chance that it would have at one of its visits in the round.
- All nodes know the numbers of the tokens that live at the start. A token that drops or is lost does not walk: its
  holder sends the notice of its end at once, in place of the one that it rests.
- A fork rests where it began, and its holder sends a notice of it at once, under its parent's number. The parent knows
  that it has forked, and the notice that it rests says so: whoever has heard of all tokens of the start thereby knows
  how many forks it has still to hear of. It walks from the next round on.
- Each node passes on what it hears for the first time, once to each neighbor. So a step ends when it has heard of all,
  and all of it from each neighbor.
- Then all nodes know the same: who lives, and whose forks get which of the next numbers, in order of their parents.
- If all would drop, the one with the lowest number stays. If all are lost, the run ends at all nodes.
"""

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.token import Token
from decentral.algorithms.token_round import Round, TokenState, Walking
from decentral.errors import DecentralError
from decentral.peer import Payload, Peer
from decentral.topology.hops import Floats, uniform
from decentral.topology.population import Regulation, fate_key

RESTS, FORK, DROPS, LOST = range(4)
"""What a notice says of a token: it rests, it is a fork of that number, or it is no more."""


class Regulated(Walking, Protocol):
    """What such a round needs to know of a method."""

    @property
    def shares(self) -> Floats: ...
    @property
    def regulation(self) -> Regulation | None: ...
    @property
    def loss(self) -> float: ...


class RegulatedRound(Round):
    """A round of tokens whose number changes.

    Args:
        method: whose tokens walk; `shares` (n,) are the nodes' of all visits, `regulation` says who forks and drops,
            and `loss` how likely a visit loses a token.
        state: the node's; `crowd` is what it knows of all tokens.
        peer: the node's.
    """

    def __init__(self, method: Regulated, state: TokenState, peer: Peer) -> None:
        super().__init__(method, state, peer)
        assert state.crowd is not None, "tokens fork in a run that began with them"
        self.rule, self.crowd = method, state.crowd
        self.due = len(self.crowd.alive) * len(self.around.neighbors)
        self.heard: dict[int, int] = {}  # what became of the tokens of the start
        self.forks: set[int] = set()  # whose forks it has heard of
        self.born: dict[int, Token] = {}  # here, by parent
        self.dropped: dict[int, Token] = {}  # here

    async def run(self) -> Tensor:
        for number, token in self.state.held.items():
            self.crowd.sightings.note(number, token.visit)
        for number, token in sorted(self.state.held.items()):
            await self.decide(number, token)
        loss = await super().run()
        self.crowd.loss = float(loss)
        self.settle()
        return loss

    async def decide(self, number: int, token: Token) -> None:
        """What becomes of a token that is about to walk."""
        time, share = token.visit, float(self.rule.shares[self.peer.node])
        u = float(uniform(_fate_key(self.peer.seed, number), time))
        regulation, token.forked = self.rule.regulation, False
        if u >= (1 - self.rule.loss) ** self.rule.visits:
            await self.end(number, LOST)
            return
        fate = regulation.fate(self.crowd.sightings, number, time, share, u) if regulation else "goes on"
        if fate == "drops":
            self.dropped[number] = token
            await self.end(number, DROPS)
        elif fate == "forks":
            self.born[number], token.forked = token.fork(), True
            await self.hear(self.said(token, FORK))

    def count(self, token: Token) -> None:
        super().count(token)
        self.crowd.sightings.note(token.number, token.visit)

    async def end(self, number: int, how: int) -> None:
        await self.hear(self.said(self.state.held.pop(number), how))

    def said(self, token: Token, what: int) -> Payload:
        """A notice at the start of a round."""
        numbers = [token.number, token.visit, token.generation, what, 0]
        return torch.tensor(numbers), torch.tensor(0.0, dtype=torch.float64)

    def notice(self, token: Token) -> Tensor:
        return torch.tensor([token.number, token.visit, token.generation, RESTS, int(bool(token.forked))])

    async def hear(self, notice: Payload) -> None:
        number, _, _, what, forked = notice[0].tolist()
        if number in (self.forks if what == FORK else self.heard):
            return
        if what == FORK:
            self.forks.add(number)
        else:
            self.heard[number] = what
        if what == RESTS:
            self.losses[number] = float(notice[1])
        if forked:
            self.due += len(self.around.neighbors)
        for neighbor in self.around.neighbors.tolist():
            await self.peer.send(neighbor, notice, self.kinds)

    def is_over(self) -> bool:
        return not self.due and len(self.heard) == len(self.crowd.alive)

    def mean_loss(self) -> float:
        return super().mean_loss() if self.losses else self.crowd.loss

    def settle(self) -> None:
        """Agree on who lives, and on the numbers of forks.

        Raises:
            DecentralError: nobody does.
        """
        alive = [number for number in self.crowd.alive if self.heard[number] == RESTS]
        rested = (self.peer.round + 1) * self.method.visits
        arriving = {}
        for fresh, parent in enumerate(sorted(self.forks), start=self.crowd.ever):
            alive.append(fresh)
            arriving[fresh] = self.born.get(parent)
        if not alive and (dropped := [number for number, what in self.heard.items() if what == DROPS]):
            alive = [min(dropped)]
            arriving[alive[0]] = self.dropped.get(alive[0])
        for number, token in arriving.items():
            if token is not None:
                token.number, token.visit = number, rested
                self.state.held[number] = token
                self.crowd.sightings.last[number] = rested
        self.crowd.alive, self.crowd.ever = alive, self.crowd.ever + len(self.forks)
        if not alive:
            raise DecentralError(
                f"all tokens were lost by round {self.peer.round}; set algorithm.fork_below, or raise it, so that "
                "those that are left fork in time"
            )


@lru_cache(maxsize=4096)
def _fate_key(seed: int, token: int) -> np.uint64:
    return fate_key(seed, token)
