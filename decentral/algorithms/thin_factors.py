"""Thin factors of a model's matrices, one after the other in a flat vector: products with them, orthonormal rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.peer import Block, Layout, Peer
from decentral.seeding import stream
from decentral.topology.stochastic import Floats

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


def _split(factors: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The factors `(r, length)` of each matrix, views of a flat vector."""
    parts = torch.split(factors, [rank * length for rank, length in sizes])
    return [part.view(size) for part, size in zip(parts, sizes, strict=True)]


def _sizes(matrices: list[Piece], of_rows: bool) -> list[tuple[int, int]]:
    return [(piece.rank, piece.rows if of_rows else piece.columns) for piece in matrices]


def products(x: Tensor, matrices: list[Piece], known: Tensor, odd: bool) -> Tensor:
    """(M Q)^T of each matrix, or (M^T P)^T, as a flat vector."""
    factors = _split(known, _sizes(matrices, of_rows=odd))
    parts = [factor @ piece.of(x, odd).T for piece, factor in zip(matrices, factors, strict=True)]
    return torch.cat([x[:0], *(part.reshape(-1) for part in parts)])


def add_products(x: Tensor, matrices: list[Piece], found: Tensor, known: Tensor, odd: bool, weight: float) -> None:
    """M += weight P Q^T of each matrix, or M^T += weight Q P^T."""
    outer, inner = _split(found, _sizes(matrices, of_rows=not odd)), _split(known, _sizes(matrices, of_rows=odd))
    for piece, found_factor, known_factor in zip(matrices, outer, inner, strict=True):
        piece.of(x, odd).add_(found_factor.T @ known_factor, alpha=weight)


def orthonormal(factors: Tensor | None, x: Tensor, matrices: list[Piece], peer: Peer, j: int, turn: int) -> Tensor:
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
