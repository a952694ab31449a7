"""PowerGossip: of what two neighbors' matrices differ by, the part that power iteration finds first. No gamma, no xhat.

Each round takes the local step and then some iterations. For every edge {i, j}, i < j, and every matrix M of the model,
both ends hold the same thin Q (n, r), drawn alike, and know a part of D = M_j - M_i though neither knows D:

    even iterations:  Q made orthonormal;  each sends M Q, and both have P = M_j Q - M_i Q = D Q
                      M_i += s w_ij P Q^T;    M_j -= s w_ij P Q^T
    odd iterations:   the same of M^T, with the P that the last one left: Q = D^T P

so D loses D Q Q^T, times 2 s w_ij, and Q turns towards its largest singular vectors from round to round. What one end
adds the other subtracts: the mean of all models stays, whatever P and Q are. Two iterations remove a D of rank r or
less from two nodes with w = 1/2. Tensors of fewer dimensions, and matrices that two factors do not make smaller, gossip
as they are: x_i += s sum_j w_ij (x_j - x_i). A tensor of more dimensions is a matrix by its first.

    P, Q   state.factors, by neighbor, what the last iteration found
    s      diffusion; the best for a graph is what `topology.scaling: optimal` finds

Per edge and iteration r (m + n) / 2 numbers are sent of a matrix in the mean. A column that vanishes, as where two
nodes agree, is drawn anew by both.

Reference: Vogels, Karimireddy and Jaggi 2020 (arXiv:2008.01425), Algorithms 1 and 2. There the first round does not
gossip, since all begin alike; here it comes after the first local step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Block, Layout, Payload, Peer
from decentral.seeding import stream
from decentral.topology.mixing import Row
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology

NEGLIGIBLE = 1e-4
"""What is left of a column beside those before it, as a share of it, that counts as nothing but rounding."""


class Matrix(NamedTuple):
    """A parameter tensor as a matrix, by its first dimension."""

    block: Block
    rows: int
    columns: int
    rank: int  # of the factors; 0 where it is sent as it is

    def of(self, flat: Tensor, odd: bool) -> Tensor:
        """The view `(rows, columns)` of a flat vector, or its transpose, which an odd iteration multiplies."""
        matrix = self.block.of(flat).view(self.rows, self.columns)
        return matrix.T if odd else matrix


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
                f"found {self.iterations} iterations on {graph.name}, whose edges are not the same in all rounds: one "
                "that is used in every second round only would always be multiplied from the same side; take an even "
                "number of algorithm.iterations"
            )
        return graph, ""

    def init(self, x: Tensor, peer: Peer) -> PowerGossipState:
        return PowerGossipState(x=x, local=self.local.bind(x, peer.layout), factors={})

    async def step(self, state: PowerGossipState, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        tensors = _cut(peer.layout, self.rank)
        matrices = [tensor for tensor in tensors if tensor.rank]
        others = [tensor.block for tensor in tensors if not tensor.rank]
        if peer.row().to:
            for iteration in range(self.iterations if matrices else 1):
                await self._iterate(state, peer, matrices, others if iteration == 0 else [], iteration)
        return loss

    async def _iterate(
        self, state: PowerGossipState, peer: Peer, matrices: list[Matrix], others: list[Block], iteration: int
    ) -> None:
        row, turn = peer.row(), peer.round * self.iterations + iteration
        odd = turn % 2 == 1
        known = {j: self._orthonormal(state, peer, matrices, j, turn) for j in row.to}
        products = {j: _products(state.x, matrices, known[j], odd) for j in row.to}
        rest = [torch.cat([block.of(state.x).reshape(-1) for block in others])] if others else []
        payloads = {j: (*([products[j]] if matrices else []), *rest) for j in row.to}
        received = await peer.exchange_each(payloads)
        for j, payload in sorted(received.items()):
            share = self.diffusion * row.weights[j]
            if matrices:
                state.factors[j] = _of_difference(peer.node, j, products[j], payload[0])
                sign = 1 if peer.node < j else -1
                _add_products(state.x, matrices, state.factors[j], known[j], odd, sign * share)
        if rest:
            self._mix_rest(state.x, others, rest[0], received, row)

    def _orthonormal(self, state: PowerGossipState, peer: Peer, matrices: list[Matrix], j: int, turn: int) -> Tensor:
        """What both ends of the edge to j know at the beginning of an iteration, as orthonormal rows."""
        odd = turn % 2 == 1
        size = sum(matrix.rank * (matrix.rows if odd else matrix.columns) for matrix in matrices)
        edge = f"power gossip {min(peer.node, j)}-{max(peer.node, j)}"
        drawn = torch.from_numpy(stream(peer.seed, -1, f"{edge} {turn}").standard_normal(size))
