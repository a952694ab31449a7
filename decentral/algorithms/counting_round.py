"""A round in which each node keeps the count of its own visits, and who holds a token asks for those that it needs.

The counts x of a walk that remembers its visits need not travel: before a hop the holder asks its neighbors for theirs,
all of them (srrw), or the one that the hop would go to (hdt), and they answer. A hop costs two letters of 72 bytes for
each neighbor asked, in place of the 8 n bytes of all counts in the token.

- While a holder waits for answers it answers what others ask, notes their notices and keeps the tokens that come for
  later: so two that ask each other both get their answers, and nobody waits for one who cannot answer.
- A question is answered in its own round: its token does not rest yet, so the notice of that is still to come over
  the same edge, behind the question.
- One token makes the same visits as if it carried its counts. Several share the nodes' counts, so each is repelled by
  where all of them have been, and the fake visits are there once for all. Between processes their paths are then a
  matter of timing, unless there is one.
"""

from collections import deque

import numpy as np
import torch

from decentral.algorithms.token import Token
from decentral.algorithms.token_round import Round, TokenState, Walking, draw
from decentral.peer import Letter, Payload, Peer

QUESTION, ANSWER = 2, 3
"""The kinds of letters beside tokens and notices."""

QUESTIONS: tuple[Payload, ...] = ((torch.zeros((), dtype=torch.int64),), (torch.zeros((), dtype=torch.float64),))
"""Their payloads: the token's number, and the node's count or its logarithm."""


class CountingRound(Round):
    """A round of a method whose nodes keep their own counts, in `state.tally`."""

    def __init__(self, method: Walking, state: TokenState, peer: Peer) -> None:
        super().__init__(method, state, peer)
        self.waiting: deque[Token] = deque()  # for this node to be free
        self.is_host = False
        self.answers: dict[int, float] = {}  # by neighbor

    async def host(self, token: Token) -> None:
        """As in any round, but one token after the other, also where one comes while the node waits for answers."""
        self.waiting.append(token)
        if self.is_host:
            return
        self.is_host = True
        while self.waiting:
            await super().host(self.waiting.popleft())
        self.is_host = False

    async def take(self, letter: Letter) -> None:
        match letter.kind:
            case kind if kind == QUESTION:
                tally = torch.tensor(self.state.tally, dtype=torch.float64)
                await self.peer.send(letter.sender, (tally,), self.kinds)
            case kind if kind == ANSWER:
                self.answers[letter.sender] = float(letter.payload[0])
            case _:
                await super().take(letter)

    def count(self, token: Token) -> None:
        self.state.tally = self.method.tally_after(self.state.tally, token.visit)

    async def next_node(self, token: Token) -> int:
        u, k = draw(token, self.peer.seed), len(self.around.neighbors)
        asked = [place for place in self.around.asked(u) if place < k]
        tallies = np.zeros(k + 1)
        tallies[asked] = await self.ask(token, self.around.neighbors[asked].tolist())
        tallies[k] = self.state.tally  # after the answers, for no other token is hosted meanwhile
        return self.around.next_node(u, tallies, token.came_from, logs=self.method.log_tallies)

    async def ask(self, token: Token, neighbors: list[int]) -> list[float]:
        """The tallies of some neighbors."""
        self.answers.clear()
        for neighbor in neighbors:
            await self.peer.send(neighbor, (torch.tensor(token.number),), self.kinds)
        while len(self.answers) < len(neighbors):
            await self.take(await self.peer.receive(self.kinds))
        return [self.answers[neighbor] for neighbor in neighbors]
