"""Token exchange: K walking models trade with the nodes' dual sums, exact with heterogeneous data at a constant rate.

At node i, with z_i its model, x_i its dual sum, g_i the gradient that it took last, t_k token k's model, n nodes and
eta the learning rate:

    node i computes       z+ = (1 - rho) z_i + rho x_i
                          x+ = x_i - eta (grad f_i(z+) - g_i) + (1 + K / n) (z+ - z_i);      g_i+ = grad f_i(z+)
    token k visits i      d = x_i - t_k;      x_i+ = x_i - c d;      t_k+ = t_k + c d

All of z, x and t begin with the same model, and all g with 0. Both kinds of event keep

    sum_i [x_i + eta g_i - (1 + K / n) z_i] + sum_k t_k = 0,

so where all agree the gradients sum to 0. It converges linearly where each f_i is strongly convex with at least
(1 + K / n) / eta, and rho is at most 1 / (2 + eta L) for smoothness L; the noise of minibatches counts eta times.
In the first round every node computes once. In the paper one random event happens at a time, an exchange with
probability p. Here each token makes all visits of a round, and at each of them, or at every gap-th one, an exchange; a
node computes before that as often as is likely for 1 - p, in the mean tokens * visits / gap * (1 - p) / (p n) times.
Of a node that dies in a run that survives it, what it had of the sum is missing for ever.

    z_i  state.x      x_i  state.dual      g_i  state.gradient      c  pull      p  exchange_share

Reference: Hendrikx 2023, "A principled framework for the design and analysis of token algorithms" (arXiv:2205.15015),
with sigma = 1 / eta; gap above 1 is its variant that mixes before it exchanges. Its variance reduced one needs
gradients of chosen samples, which a minibatch method does not have.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.token import Token
from decentral.algorithms.token_round import TokenState
from decentral.algorithms.tokens import TokenMethod
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.seeding import integer_seed
from decentral.topology.hops import uniform
from decentral.topology.topology import Topology


@dataclass(slots=True)
class ExchangeState(TokenState):
    dual: Tensor  # (d,) x_i
    gradient: Tensor  # (d,) g_i
    loss: Tensor  # () of the last gradient


@dataclass(frozen=True, kw_only=True)
class TokenExchange(TokenMethod):
    model_walks: ClassVar[bool] = False

    rho: float = 0.05
    pull: float = 0.5
    exchange_share: float = 0.5
    gap: int = 1

    @property
    def starts_alike(self) -> bool:
        return True

    def on(self, graph: Topology) -> Self:
        ready = super().on(graph)
        assert ready.chain is not None
        if self.gap > 1 and self.kernel == "non-backtracking":
            raise ConfigError(f"gap is {self.gap}, and kernel {self.kernel} may go in circles; take another kernel")
        stays = bool((ready.chain.log_rates < 0).any())
        if self.gap % 2 == 0 and not stays and nx.is_bipartite(graph.graph):
            raise ConfigError(
                f"gap is {self.gap}, and this walk on {graph.name} comes back to a node at even hops only, so a token "
                "would exchange with one half of the nodes; take an odd gap"
            )
        return ready

    def share(self, state: TokenState, peer: Peer) -> None:  # noqa: ARG002  nodes' own models are what is trained
        return None

    def init(self, x: Tensor, peer: Peer) -> ExchangeState:
        dual, gradient, loss = x.clone(), torch.zeros_like(x), torch.zeros(())
        return ExchangeState(**self.opened(x, peer), dual=dual, gradient=gradient, loss=loss)

    async def step(self, state: Any, peer: Peer) -> Tensor:
        for _ in range(self.computes(peer.node, peer.round, peer)):
            await self._compute(state, peer)
        await super().step(state, peer)
        loss: Tensor = state.loss
        return loss.clone()

    def computes(self, node: int, round: int, peer: Peer) -> int:
        """How many gradients a node takes in a round, the same in every driver."""
        if round == 0:
            return 1
        p = self.exchange_share
        likely = self.tokens * self.visits / self.gap * (1 - p) / (p * peer.nodes)
        return int(likely + uniform(np.uint64(integer_seed(peer.seed, node, "computes")), round))

    async def _compute(self, state: ExchangeState, peer: Peer) -> None:
        moved = (state.dual - state.x).mul_(self.rho)
        state.x.add_(moved)
        loss, gradient = await peer.gradient(state.x)
        fresh = state.local.decay_(gradient)
        state.dual.add_(moved, alpha=1 + self.tokens / peer.nodes)
        state.dual.sub_(fresh - state.gradient, alpha=state.local.lr)
        state.gradient.copy_(fresh)
        state.loss = loss.clone()

    async def visit(self, state: Any, token: Token, peer: Peer) -> Tensor:  # noqa: ARG002
        if (token.visit + 1) % self.gap == 0:
            drift = (state.dual - token.x).mul_(self.pull)
            state.dual.sub_(drift)
            token.x.add_(drift)
        return torch.zeros(())

    def look(self, state: TokenState) -> None:
        """A node's model is its own."""
