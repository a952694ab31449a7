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
- All this is for letters. With `route: seeded` every node works out the routes of all tokens, and a round needs no
  notice: see `routed_round`.

Nodes may keep the counts (`counting_round`), and tokens may fork and drop (`regulated_round`).

A token has a number, counts its visits, and carries the generation that it is of and a digest of what it carries.
With more than one, they are independent, or those that rest at one node take their mean there (`meeting`).
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.counting_round import QUESTIONS, CountingRound
from decentral.algorithms.custody import Custody, Kept
from decentral.algorithms.custody_round import CustodyRound, custody_letters
from decentral.algorithms.routed_round import RoutedRound
from decentral.algorithms.token import Token
from decentral.algorithms.token_round import Round, TokenState, letters
from decentral.errors import ConfigError
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
        counts_at: who keeps the counts of a walk that remembers its visits: each token all of them, or each node its
            own (see `counting_round`).
        route: how a node knows that a token comes: it gets a letter, or it works all routes out.
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
    counts_at: Literal["token", "nodes"] = "token"
    route: Literal["letters", "seeded"] = "letters"
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

    @property
    def changing(self) -> bool:
        """Whether the number of tokens changes."""
        return False

    @property
    def performed(self) -> type[Round]:
        """How a node performs its part of a round."""
        if self.survive:
            return CustodyRound
        if self.route == "seeded":
            return RoutedRound
        return CountingRound if self.counts_at == "nodes" else Round

    @property
    def carries_counts(self) -> bool:
        """Whether each token carries the visits of all nodes."""
        return self.walk.remembers and self.counts_at == "token" and self.route == "letters"

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
        self._refuse_what_excludes_each_other()
        return replace(self, chain=chain(graph.graph, self.walk, self.target))

    def _refuse_what_excludes_each_other(self) -> None:
        if self.counts_at == "nodes" and not self.walk.remembers:
            raise ConfigError(
                f"kernel {self.kernel} counts no visits, found counts_at: nodes; leave it out, or use kernel srrw or "
                "hdt"
            )
        if len(found := [words for words, is_asked in self.kinds_of_rounds().items() if is_asked]) > 1:
            raise ConfigError(f"found {' with '.join(found)}; a run has one of these at most: leave the others out")

    def kinds_of_rounds(self) -> dict[str, bool]:
        """What makes a round of another kind, in the words of an experiment, and whether it is asked for."""
        return {
            "transport.survive": self.survive,
            "route: seeded": self.route == "seeded",
            "counts_at: nodes": self.counts_at == "nodes",
            "fork_below or loss": self.changing,
        }

    def init(self, x: Tensor, peer: Peer) -> TokenState:
        return TokenState(**self.opened(x, peer))

    def opened(self, x: Tensor, peer: Peer) -> dict[str, Any]:
        """What every token method's State begins with."""
        return {
            "x": x,
            "local": self.local.bind(x, peer.layout),
            "held": self.begun(x, peer),
            "custody": self.opening(x, peer),
            "tally": self.tally(peer.node),
        }

    def begun(self, x: Tensor, peer: Peer) -> dict[int, Token]:
        """The tokens that start at a node."""
        return {k: self.begin(k, x) for k, first in enumerate(self.starts(peer)) if first == peer.node}

    def begin(self, number: int, x: Tensor) -> Token:
        """A token before its first visit."""
        return Token(number, 0, 0, NOWHERE, 0.0, self.carried(x), self.counts() if self.carries_counts else None)

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
        """`(n,)` the visits before the first one, up to a factor; None where the walk has no use for them."""
        assert self.chain is not None, "a token method is made ready for a graph by `on`"
        return torch.from_numpy(self.chain.initial_counts()) if self.walk.remembers else None

    def tally(self, node: int) -> float:
        """What a node that keeps its own count begins with."""
        counts = self.counts() if self.counts_at == "nodes" else None
        if counts is None:
            return 0.0
        return log(counts[node]) if self.log_tallies else float(counts[node])

    def steps_per_round(self, nodes: int) -> int:
        return self.tokens * self.visits if self.model_walks else nodes

    def share(self, state: TokenState, peer: Peer) -> tuple[Tensor, float] | None:  # noqa: ARG002
        total = torch.zeros_like(state.x)
        for token in state.held.values():
            total.add_(token.x)
        return total, float(len(state.held))

    async def step(self, state: Any, peer: Peer) -> Tensor:
        self._meet(state.held)
        loss = await self.performed(self, state, peer).run()
        self.look(state)
        return loss

    def kinds(self, x: Tensor) -> tuple[Payload, ...]:
        """The letters of a run on models like `x: (d,)`."""
        carried = self.travelling(x)
        if self.survive:
            return custody_letters(carried, self.tokens)
        return letters(carried) + (QUESTIONS if self.counts_at == "nodes" else ())

    def travelling(self, x: Tensor) -> list[Tensor]:
        """What a token carries of models like `x: (d,)`, by shape and dtype."""
        counts = self.counts() if self.carries_counts else None
        return [x] * self.vectors + ([] if counts is None else [counts])

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

    @property
    def log_tallies(self) -> bool:
        """Whether nodes that keep their own counts keep the logarithms, which grow without bound more slowly."""
        return False

    def tally_after(self, tally: float, visit: int) -> float:  # noqa: ARG002
        """A node's own count, or its logarithm, after a token's visit of this number."""
        return tally + 1

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
