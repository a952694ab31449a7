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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Block, Layout, Payload, Peer
from decentral.seeding import stream
from decentral.topology.mixing import Row
from decentral.topology.stochastic import Floats, Kind
from decentral.topology.topology import Topology

NEGLIGIBLE = 1e-4
"""What a column may leave of itself beside those before it, as a share, and count as nothing but rounding."""


class Piece(NamedTuple):
    """A parameter tensor as a matrix, by its first dimension; of rank 0, as it is."""

    block: Block
    rows: int
    columns: int
    rank: int

    def of(self, flat: Tensor, odd: bool) -> Tensor:
        """A view `(rows, columns)` of a flat vector, or its transpose, which odd iterations multiply."""
        matrix = self.block.of(flat).view(self.rows, self.columns)
        return matrix.T if odd else matrix


def pieces_of(layout: Layout, rank: int) -> tuple[list[Piece], list[Piece]]:
    """The matrices that are sent as factors of rank r, and the tensors that are sent as they are."""
    pieces = [_piece(block, rank) for block in layout]
    return [piece for piece in pieces if piece.rank], [piece for piece in pieces if not piece.rank]


def _piece(block: Block, rank: int) -> Piece:
    rows = block.shape[0] if block.shape else 1
    columns = torch.Size(block.shape[1:]).numel()
    rank = min(rank, rows, columns)
    is_smaller = len(block.shape) > 1 and rank * (rows + columns) < 2 * rows * columns
    return Piece(block, rows, columns, rank if is_smaller else 0)


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
        known = {j: _orthonormal(state.factors.get(j), state.x, matrices, peer, j, turn) for j in row.to}
        found = {j: _products(state.x, matrices, factors, odd) for j, factors in known.items()}
        rest = torch.cat([state.x[:0], *(piece.block.of(state.x).reshape(-1) for piece in others)])
        payloads = {j: tuple(part for part in (found[j], rest) if part.numel()) for j in found}
        received = await peer.exchange_each(payloads)
        for j, payload in sorted(received.items()):
            if matrices:
                # The same bits at both ends, since both take the lower node's from the higher one's.
                difference = payload[0] - found[j] if peer.node < j else found[j] - payload[0]
                sign = 1 if peer.node < j else -1
                _add_products(state.x, matrices, difference, known[j], odd, sign * self.diffusion * weights[j])
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


def _split(factors: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The factors `(r, length)` of each matrix, views of a flat vector."""
    parts = torch.split(factors, [rank * length for rank, length in sizes])
    return [part.view(size) for part, size in zip(parts, sizes, strict=True)]


def _sizes(matrices: list[Piece], of_rows: bool) -> list[tuple[int, int]]:
    return [(piece.rank, piece.rows if of_rows else piece.columns) for piece in matrices]


def _products(x: Tensor, matrices: list[Piece], known: Tensor, odd: bool) -> Tensor:
    """(M Q)^T of each matrix, or (M^T P)^T, as a flat vector."""
    factors = _split(known, _sizes(matrices, of_rows=odd))
    parts = [factor @ piece.of(x, odd).T for piece, factor in zip(matrices, factors, strict=True)]
    return torch.cat([x[:0], *(part.reshape(-1) for part in parts)])


def _add_products(x: Tensor, matrices: list[Piece], found: Tensor, known: Tensor, odd: bool, weight: float) -> None:
    """M += weight P Q^T of each matrix, or M^T += weight Q P^T."""
    outer, inner = _split(found, _sizes(matrices, of_rows=not odd)), _split(known, _sizes(matrices, of_rows=odd))
    for piece, found_factor, known_factor in zip(matrices, outer, inner, strict=True):
        piece.of(x, odd).add_(found_factor.T @ known_factor, alpha=weight)


def _orthonormal(factors: Tensor | None, x: Tensor, matrices: list[Piece], peer: Peer, j: int, turn: int) -> Tensor:
    """What both ends of the edge to j hold, made orthonormal matrix by matrix, as a flat vector."""
    sizes = _sizes(matrices, of_rows=turn % 2 == 1)
    total = sum(rank * length for rank, length in sizes)
    if x.is_meta:
        return x.new_empty(total)
    held = _drawn(total, peer, j, turn) if factors is None else factors.double().cpu().numpy()
    made, start = np.array(held), 0
    for rank, length in sizes:
        rows = made[start : start + rank * length].reshape(rank, length)
        for i in range(rank):
            if not _made_orthonormal(rows, i):
                rows[i] = _drawn(total, peer, j, turn)[start : start + rank * length].reshape(rank, length)[i]
                _made_orthonormal(rows, i)
        start += rank * length
    return torch.from_numpy(made).to(x.device, x.dtype)


def _drawn(size: int, peer: Peer, j: int, turn: int) -> Floats:
    """Normally distributed numbers, the same at both ends of an edge."""
    edge = f"power gossip {min(peer.node, j)}-{max(peer.node, j)} {turn}"
    return stream(peer.seed, -1, edge).standard_normal(size)


def _made_orthonormal(rows: Floats, i: int) -> bool:
    """Whether there is more than rounding of row i beside those before it; then it is orthogonal to them, of length 1.

    What is left by rounding would not be the same at two ends that compute on different machines.
    """
    before = np.linalg.norm(rows[i])
    for _ in range(2 if i else 0):
        rows[i] -= (rows[:i] @ rows[i]) @ rows[:i]
    length = np.linalg.norm(rows[i])
    if not length > NEGLIGIBLE * before:
        return False
    rows[i] /= length
    return True
