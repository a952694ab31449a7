"""PowerGossip: of what two neighbors' matrices differ by, the part that power iteration finds first. No gamma, no xhat.

Each round takes the local step and then some iterations. For every edge {i, j}, i < j, and every matrix M of the model,
both ends hold the same thin Q (n, r) and know a part of D = M_j - M_i, though neither knows D:

    even iterations    Q made orthonormal;  each sends M Q, and both have P = M_j Q - M_i Q = D Q
                       M_i += s w_ij P Q^T;    M_j -= s w_ij P Q^T
    odd iterations     the same of M^T, with the P that the last one left: Q = D^T P

so D loses 2 s w_ij D Q Q^T, and Q turns towards its largest singular vectors from round to round. What one end adds the
other subtracts: the mean of all models stays, whatever P and Q are. Two iterations remove a D of rank r or less from
two nodes with w = 1/2. Iterations are counted over all rounds, and the first Q of an edge is drawn alike at both ends,
as is a column that vanishes, where two nodes agree. Tensors of fewer dimensions, and matrices that factors do not make
smaller, gossip as they are: x_i += s sum_j w_ij (x_j - x_i). A tensor of more dimensions is a matrix by its first.

    P, Q   state.factors, by neighbor: what the last iteration found
    s      diffusion; the best for a graph is that of `topology.scaling: optimal`, either of them

In the mean r (m + n) / 2 numbers of a matrix are sent per edge and iteration.

Reference: Vogels, Karimireddy and Jaggi 2020 (arXiv:2008.01425), Algorithms 1 and 2. There the first round does not
gossip, since all begin alike; here it comes after the first local step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.thin_factors import Piece, add_products, orthonormal, pieces_of, products
from decentral.errors import ConfigError
from decentral.peer import Payload, Peer
from decentral.topology.mixing import Row
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology


@dataclass(slots=True)
class PowerGossipState(State):
    factors: dict[int, Tensor]  # by neighbor: P^T or Q^T of each matrix, one after the other


@dataclass(frozen=True, kw_only=True)
class PowerGossip(Algorithm):
    mixing: ClassVar[Kind] = "symmetric"

    rank: int = 1  # r
    iterations: int = 1
    diffusion: float = 1.0  # s

    def suited(self, graph: Topology) -> tuple[Topology, str]:
        if graph.schedule.period != 1 and self.iterations % 2:
            raise ConfigError(
                f"the edges of {graph.name} are not the same in all rounds, and one that is used in every second round "
                f"would always be multiplied from the same side; found {self.iterations} iterations, required: an even "
                "number of them",
                ("algorithm", "iterations"),
            )
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> PowerGossipState:
        return PowerGossipState(x=x, local=self.local.bind(x, peer.layout), factors={})

    async def step(self, state: PowerGossipState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        matrices, others = pieces_of(peer.layout, self.rank)
        row = peer.row()
        if row.to:
            for iteration in range(self.iterations if matrices else 1):
                await self._iterate(state, peer, row, matrices, others if iteration == 0 else [], iteration)
        return loss

    async def _iterate(
        self, state: PowerGossipState, peer: Peer, row: Row, matrices: list[Piece], others: list[Piece], iteration: int
    ) -> None:
        weights, turn = row.weights, peer.round * self.iterations + iteration
        odd = turn % 2 == 1
        known = {j: orthonormal(state.factors.get(j), state.x, matrices, peer, j, turn) for j in row.to}
        found = {j: products(state.x, matrices, factors, odd) for j, factors in known.items()}
        rest = torch.cat([state.x[:0], *(piece.block.of(state.x).reshape(-1) for piece in others)])
        payloads = {j: tuple(part for part in (found[j], rest) if part.numel()) for j in found}
        received = await peer.exchange_each(payloads)
        for j, payload in sorted(received.items()):
            if matrices:
                # The same bits at both ends, since both take the lower node's from the higher one's.
                difference = payload[0] - found[j] if peer.node < j else found[j] - payload[0]
                sign = 1 if peer.node < j else -1
                add_products(state.x, matrices, difference, known[j], odd, sign * self.diffusion * weights[j])
                state.factors[j] = difference
        if others:
            self._mix_rest(state.x, others, rest, received, weights)

    def _mix_rest(
        self,
        x: Tensor,
        others: list[Piece],
        rest: Tensor,
        received: Mapping[int, Payload],
        weights: Mapping[int, float],
    ) -> None:
        change = torch.zeros_like(rest)
        for j, payload in sorted(received.items()):
            change.add_(payload[-1] - rest, alpha=self.diffusion * weights[j])
        parts = torch.split(change, [piece.rows * piece.columns for piece in others])
        for piece, part in zip(others, parts, strict=True):
            view = piece.block.of(x)
            view.add_(part.view(view.shape))
