"""What token methods have in common: nobody averages; a model walks from node to node, and each visit is one step.

How such a run stands on the waist, whose unit is a round of one step at each node:

- In a round each token makes `visits` visits and then rests. A visit is the method's step at the token's holder, and a
  hop of the walk. The budget travels with the token: visit t belongs to round t // visits, so whoever receives a token
  whose budget is used up keeps it until the next round.
- Where a token comes to rest, its holder tells its neighbors, and each node that hears so for the first time tells its
  own: a notice of a few bytes crosses each edge once in each direction, for each token. A node's step ends when all of
  its neighbors have told it of all tokens. By then every token rests, and nothing is left on its links, for these keep
  the order; no node is left blocked, and none needs to know how far the others are.
- A node waits for a letter from any neighbor (`Receive`), whether the next one is a token or a notice. What comes of a
  round that the node has not begun waits for it.
- So a round ends for all, as it does in gossip: evaluation, checkpoints, records and the simulators need nothing new.
  Between two rounds the tokens are in the State of their holders.
- Who is visited is a function of (seed, token, visit): the tokens carry their own counts. What a node does at its m-th
  visit is a function of m. With one token all is in sequence, so every driver gives the same bits; with several,
  whoever is first at a node gets its next minibatch, which between processes is a matter of timing, unless
  `visits` is 1: then all that a round visits rests where it is visited before the round, in order of numbers.
- Notices carry the loss of the token's visits, so every node returns the same, and a loss that is not finite ends the
  run at all nodes at once.

A token has a number, counts its visits, and carries the generation that it is of and a digest of what it carries.
With more than one, they are independent, or those that rest at one node take their mean there (`meeting`).
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.custody import Custody, Kept
from decentral.algorithms.custody_round import CustodyRound, custody_letters
from decentral.algorithms.token import Token
from decentral.algorithms.token_round import Round, TokenState, letters
from decentral.peer import Payload, Peer
from decentral.topology.chains import Chain, chain
from decentral.topology.hops import NOWHERE
from decentral.topology.lazy import refuse_changing
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology
from decentral.topology.walks import KERNELS, Surroundings, Walk, first_node


@dataclass(frozen=True, kw_only=True)
class TokenMethod(Algorithm):
    """A method whose model, or models, walk.

    Args:
        kernel, alpha, fake_visits: of the walk, as `walks.Walk` has them.
        target: the share of visits that each node is to have; the kernel's own unless given.
        tokens: how many walk.
        visits: of each token, in a round.
        meeting: what tokens do that rest at one node.
        chain: the walk on the run's graph, which `on` adds.
        survive: whether the tokens outlive their holders; `custody_round` says how.
    """

    mixing: ClassVar[Kind] = "column-stochastic"  # it has no use for the matrix
    owns_step: ClassVar[bool] = True
    survives: ClassVar[bool] = True
    model_walks: ClassVar[bool] = True
    """Whether the trained model is the tokens', so that a node's is what it has seen last."""

    kernel: str = "metropolis"
    alpha: float = 0.0
    fake_visits: float = 1.0
    target: Literal["uniform", "degree"] | None = None
    tokens: int = 1
    visits: int = 1
    meeting: Literal["independent", "average"] = "independent"
    chain: Chain | None = None
    survive: bool = False

    @property
    def vectors(self) -> int:
        """How many of shape `(d,)` a token carries, the model among them."""
        return 1

    @property
    def walk(self) -> Walk:
        """How the tokens hop."""
        return Walk(self.kernel, self.alpha, self.fake_visits)

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        refuse_changing(graph, "a walk")
        degrees = {len(graph.neighbors(node)) for node in range(graph.nodes)}
        if len(degrees) == 1 or (self.target or KERNELS[self.kernel].natural) == "uniform":
            return graph, ""
        return graph, (
            f"the walk visits the nodes of {graph.name} in proportion to their degrees, and so weighs their losses; "
            "kernel metropolis or srrw visits all alike"
        )

    def on(self, graph: Topology) -> Self:
        return replace(self, chain=chain(graph.graph, self.walk, self.target))

    def init(self, x: Tensor, peer: Peer) -> TokenState:
        held, custody = self.begun(x, peer), self.opening(x, peer)
        return TokenState(x=x, local=self.local.bind(x, peer.layout), held=held, custody=custody)

    def begun(self, x: Tensor, peer: Peer) -> dict[int, Token]:
        """The tokens that start at a node."""
        return {k: self.begin(k, x) for k, first in enumerate(self.starts(peer)) if first == peer.node}

    def begin(self, number: int, x: Tensor) -> Token:
        """A token before its first visit."""
        return Token(number, 0, 0, NOWHERE, 0.0, self.carried(x), self.counts())

    def starts(self, peer: Peer) -> list[int]:
        """Where each token starts."""
        return [first_node(peer.seed, k, peer.nodes) for k in range(self.tokens)]

    def opening(self, x: Tensor, peer: Peer) -> Custody | None:
        """Who keeps a copy of what at the start: all models are alike there, so a node makes those that it keeps."""
        if not self.survive:
            return None
        assert self.chain is not None, "a token method is made ready for a graph by `on`"
        starts = self.starts(peer)
        custodians = {first: min(self.chain.neighbors_of(first), default=NOWHERE) for first in {*starts}}
        kept = {k: Kept(at, self.begin(k, x)) for k, at in enumerate(starts) if custodians[at] == peer.node}
        entrusted = {k: custodians[at] for k, at in enumerate(starts) if at == peer.node}
        return Custody.opening(starts, kept, entrusted)

    def carried(self, x: Tensor) -> list[Tensor]:
        """What a token carries at its start: the model, and zeros."""
        return [x.clone(), *(torch.zeros_like(x) for _ in range(self.vectors - 1))]

    def counts(self) -> Tensor | None:
        """What a token carries of its visits at its start."""
        assert self.chain is not None, "a token method is made ready for a graph by `on`"
        return torch.from_numpy(self.chain.initial_counts()) if self.walk.remembers else None

    def share(self, state: TokenState, peer: Peer) -> tuple[Tensor, float] | None:  # noqa: ARG002
        total = torch.zeros_like(state.x)
        for token in state.held.values():
            total.add_(token.x)
        return total, float(len(state.held))

    async def step(self, state: Any, peer: Peer) -> Tensor:
        self._meet(state.held)
        loss = await (CustodyRound if self.survive else Round)(self, state, peer).run()
        self.look(state)
        return loss

    def kinds(self, x: Tensor) -> tuple[Payload, ...]:
        """The letters of a run on models like `x: (d,)`."""
        counts = self.counts()
        carried = [x] * self.vectors + ([] if counts is None else [counts])
        return custody_letters(carried, self.tokens) if self.survive else letters(carried)

    @abstractmethod
    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor:
        """The method's step at the token's holder, on the token's vectors in place; returns the loss `()`."""

    def look(self, state: TokenState) -> None:
        """All tokens rest: a node that holds some has seen the last of them last, whichever came first."""
        if state.held:
            state.x.copy_(state.held[max(state.held)].x)

    def count(self, counts: Tensor, visit: int, node: int) -> None:  # noqa: ARG002
        """Note a visit in the token's counts `(n,)`."""
        counts[node] += 1

    def around(self, node: int) -> Surroundings:
        """What a walk needs to know of a node's neighbors."""
        assert self.chain is not None, "a token method is made ready for a graph by `on`"
        return _surroundings(self.chain, node)

    def _meet(self, held: dict[int, Token]) -> None:
        if self.meeting == "independent" or len(held) < 2:
            return
        together = [token for _, token in sorted(held.items())]
        for part in range(self.vectors):
            mean = torch.stack([token.vectors[part] for token in together]).mean(0)
            for token in together:
                token.vectors[part].copy_(mean)


@lru_cache(maxsize=4096)
def _surroundings(chain: Chain, node: int) -> Surroundings:
    return chain.surroundings(node)
