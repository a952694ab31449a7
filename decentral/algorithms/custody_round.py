"""A round whose tokens outlive their holders: by custody of copies, and by what a dead node's neighbors testify.

- Whoever sends a token keeps a copy, and is its custodian while it is there. Where a walk stays, its holder sends the
  custodian the new state, so that a copy lacks at most the visit that is being made. A holder whose custodian is dead
  appoints its lowest living neighbor. A notice of rest names the custodian: all other copies are dropped.
- A death is told to the dead node's neighbors, after all that it had sent. Each floods a testimony: what it had given
  to the node, and what had come from there, of each token. When those of all living neighbors of a group of dead nodes
  that hangs together are there, everybody sees the same: a token died in the group if the newest that is known to have
  entered is newer than the newest that came out. The keeper of the newest copy makes the token anew, of the next
  generation, and hosts it: a hop to a dead node becomes a stay. So what had been passed on is not doubled, and what had
  not arrived is not lost.
- Nodes refuse tokens, copies and notices of an older generation than they have heard of.
- Walks hop among the living (`Surroundings.without`).

A round ends at a node when each neighbor that can still send anything has told it, of each token, that it rests after
this round's visits, in whatever generation. Nobody may wait for more: a neighbor that has ended the round answers
nothing any more in it. If one living node knows it, all will; if none does, nobody has ended the round, and the token,
made anew, comes to rest in it. A token made anew after its rest has been told stays where it is until the next round
and makes up there for what it lacks. Testimonies that come too late for a round are weighed in the next, and at the end
of a run `custody.settle` finds what is still missing.

The links break for one reason only, the death of a node: who hears that it is taken for dead ends with an error. What
is left must hang together.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from decentral.algorithms.custody import Custody, Kept, died_with, named, stamp
from decentral.algorithms.token import Token
from decentral.algorithms.token_round import NOTICE, TOKEN, Round, TokenState, Walking
from decentral.errors import LostNeighborError
from decentral.peer import GONE, Letter, Payload, Peer
from decentral.topology.chains import Chain
from decentral.topology.hops import NOWHERE

COPY, TESTIMONY = range(2, 4)
"""More kinds of letters."""


class Surviving(Walking, Protocol):
    """What such a round needs to know of a method."""

    @property
    def chain(self) -> Chain | None: ...


def custody_letters(carried: Sequence[Tensor], tokens: int) -> tuple[Payload, ...]:
    """The letters of a run, by kind: a token that carries these tensors, a notice of rest, a copy, a testimony."""
    numbers, loss = torch.empty(5, dtype=torch.int64), torch.empty((), dtype=torch.float64)
    testimony = torch.empty(2, dtype=torch.int64), torch.empty(2, tokens, dtype=torch.int64)
    return (*carried, numbers, loss), (numbers, loss), (*carried, numbers, loss.view(1)), testimony


class CustodyRound(Round):
    """A round that is under way at one node, in a run that survives deaths.

    Raises:
        LostNeighborError: the living no longer hang together, a token died with all that could bring it back, or the
            node itself is taken for dead.
    """

    def __init__(self, method: Surviving, state: TokenState, peer: Peer) -> None:
        super().__init__(method, state, peer)
        assert method.chain is not None
        assert state.custody is not None
        self.chain: Chain = method.chain
        self.custody: Custody = state.custody
        self.node = peer.node
        self.budget = (peer.round + 1) * method.visits
        self.untold = {neighbor: set(range(method.tokens)) for neighbor in self.chain.neighbors_of(self.node)}
        self.look_around()

    def look_around(self) -> None:
        """See which neighbors live."""
        dead = self.custody.dead
        self.living = [neighbor for neighbor in self.chain.neighbors_of(self.node) if neighbor not in dead]
        self.around = self.method.around(self.node).without(dead)

    def is_over(self) -> bool:
        waits = any(numbers and neighbor not in self.custody.gone for neighbor, numbers in self.untold.items())
        return not waits and len(self.losses) == self.method.tokens

    async def take(self, letter: Letter) -> None:
        sender, kind = letter.sender, letter.kind
        if kind == GONE:
            self.custody.gone.append(sender)
            await self.weigh(self.node, sender, self.custody.testimony(sender))
        elif kind == NOTICE:
            number, visit, _, holder, _ = letter.payload[0].tolist()
            if visit >= self.budget:
                self.untold[sender].discard(number)
            await self.hear(letter.payload)
            if holder in self.custody.testimonies:
                await self.decide()
        elif kind in (TOKEN, COPY):
            await self.receive(Token.arrived(letter, self.node, self.method.carries_counts), sender, kind)
        else:
            (witness, dead), words = letter.payload[0].tolist(), letter.payload[1]
            await self.weigh(witness, dead, words.clone())

    async def receive(self, token: Token, sender: int, kind: int) -> None:
        """Host a token that came, or keep a copy; neither if it is of an older generation."""
        custody, number = self.custody, token.number
        if kind == TOKEN:
            custody.note_arrival(token, sender)
        if custody.is_old(number, token.generation):
            return
        self.learn(number, token.generation)
        if kind == TOKEN:
            custody.custodians[number] = sender
            await self.host(token)
        elif number not in custody.kept or newer(token, custody.kept[number].token):
            custody.kept[number] = Kept(sender, token)

    def learn(self, number: int, generation: int) -> None:
        """A generation is known; an older one that is held here has lost its right to be."""
        if self.custody.is_old(number, generation):
            return
        self.custody.generations[number] = generation
        held = self.state.held.get(number)
        if held is not None and held.generation < generation:
            del self.state.held[number], self.custody.custodians[number]

    async def host(self, token: Token) -> None:
        if self.custody.custodians[token.number] not in self.living:
            await self.entrust(token)
        if token.number in self.losses:  # its rest has been told, and who knows of it may have ended the round
            await self.rest(token)
        else:
            await super().host(token)

    async def pass_on(self, token: Token, to: int) -> None:
        await super().pass_on(token, to)
        del self.custody.custodians[token.number]
        self.custody.kept[token.number] = Kept(to, token)

    async def stay(self, token: Token) -> None:
        await self.entrust(token)

    async def entrust(self, token: Token) -> None:
        """Send the custodian the token as it is now; another one, where that is dead."""
        custodians, number = self.custody.custodians, token.number
        if custodians[number] not in self.living:
            custodians[number] = min(self.living, default=NOWHERE)
        if custodians[number] != NOWHERE:
            *carried, loss = token.payload()
            await self.peer.send(custodians[number], (*carried, loss.view(1)), self.kinds)

    async def rest(self, token: Token) -> None:
        number = token.number
        self.state.held[number] = token
        loss, token.loss = self.losses.get(number, token.loss / self.method.visits), 0.0
        custodian = self.custody.custodians[number]
        numbers = torch.tensor([number, token.visit, token.generation, self.node, custodian])
        await self.hear((numbers, torch.tensor(loss, dtype=torch.float64)))

    async def hear(self, notice: Payload) -> None:
        numbers, loss = notice
        number, visit, generation, holder, custodian = numbers.tolist()
        self.learn(number, generation)
        ended = visit >= self.budget and number not in self.losses
        if ended:
            self.losses[number] = float(loss)
        news = self.custody.note_rest(number, stamp(generation, visit), holder, custodian, self.node)
        if ended or news:
            await self.tell(notice)

    async def tell(self, payload: Payload) -> None:
        """Send all living neighbors the same."""
        for neighbor in self.living:
            await self.peer.send(neighbor, payload, self.kinds)

    async def weigh(self, witness: int, dead: int, words: Tensor) -> None:
        """Consider a neighbor's testimony about a dead node, `words: (2, K)`, and tell it to the living."""
        if dead == self.node:
            raise LostNeighborError(
                f"node {witness} lost node {dead}, which lives: the link between them broke; check the network"
            )
        about = self.custody.testimonies.setdefault(dead, {})
        if witness in about:
            return
        about[witness] = words
        if len(about) == 1:
            await self.bury(dead)
        await self.tell((torch.tensor([witness, dead]), words))
        await self.decide()

    async def bury(self, dead: int) -> None:
        """Go on without a node that nobody here knew to be dead."""
        self.look_around()
        alive = set(range(self.peer.nodes)).difference(self.custody.dead)
        if len(parts := self.chain.parts(alive)) > 1:
            raise LostNeighborError(
                f"without {named(self.custody.dead)}, which died, node {parts[1][0]} cannot be reached from node "
                f"{parts[0][0]}, and tokens cannot either; take a graph that hangs together without any one node"
            )
        for number, token in sorted(self.state.held.items()):
            if self.custody.custodians[number] == dead:
                await self.entrust(token)

    async def decide(self) -> None:
        """Make tokens anew that died, where all has been said about their nodes and the newest copy is here."""
        testimonies = self.custody.testimonies
        for group in self.chain.parts(testimonies):
            asked = [(j, dead) for dead in group for j in self.chain.neighbors_of(dead) if j not in testimonies]
            if not all(witness in testimonies[dead] for witness, dead in asked):
                continue
            for number, keeper in self.custody.losses(group, asked):
                # What was kept here may have been made anew before, and have died again with all that was newer.
                gone = keeper is None or (keeper == self.node and number not in self.custody.kept)
                if gone:
                    raise died_with(number, group)
                if keeper == self.node:
                    await self.revive(number)

    async def revive(self, number: int) -> None:
        """Let a token's copy take its place."""
        token = self.custody.kept.pop(number).token
        token.generation, token.came_from = int(self.custody.generations[number]) + 1, self.node
        if token.visit <= self.budget - self.method.visits:
            token.loss = 0.0  # of visits of earlier rounds
        self.learn(number, token.generation)
        self.custody.custodians[number] = NOWHERE
        await self.host(token)


def newer(token: Token, other: Token) -> bool:
    """Whether one came later than another, or is the same."""
    return (token.generation, token.visit) >= (other.generation, other.visit)
