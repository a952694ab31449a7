"""Low rank: each matrix of the model as a product of two thin ones, M ~ P Q^T, by one step of power iteration.

    P = M Q, made orthonormal;    Q+ = M^T P;    C(M) = P Q+^T, the projection of M's columns onto those of P

Q is what the last message had, at its start random: the columns turn towards M's largest singular vectors. A column
that has become zero is drawn anew. A tensor of one dimension is sent as it is, and so is a matrix whose factors are no
smaller. A tensor of more dimensions is a matrix by its first.

Vogels, Karimireddy and Jaggi 2019 (arXiv:1905.13727), Algorithm 1, for one node's matrix. From a random Q, delta is
r / min(m, n) at worst, of the matrix for which that is least; a Q of earlier messages does better as a rule and has no
guarantee. The factors are rounded to the vector's dtype and multiplied in a fixed order, so that all decode the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key
from decentral.compression.passes import settle
from decentral.peer import Block
from decentral.seeding import stream


class Piece(NamedTuple):
    """One parameter tensor, where it lies in the vector, and where its part of the message begins, in numbers."""

    start: int
    rows: int
    columns: int
    rank: int  # 0 for one that is sent as it is
    place: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    @property
    def sent(self) -> int:
        return self.rank * (self.rows + self.columns) or self.size

    def factors(self, message: Array) -> tuple[Array, Array]:
        """P^T `(r, rows)` and Q^T `(r, columns)`, views of the message's numbers."""
        split = self.place + self.rank * self.rows
        return (
            message[self.place : split].reshape(self.rank, self.rows),
            message[split : self.place + self.sent].reshape(self.rank, self.columns),
        )


@dataclass(frozen=True)
class LowRank(Compressor):
    """Tensor by tensor in the layout's order: P^T and Q^T, or the numbers.

    Args:
        rank: r, of every matrix.
    """

    rank: int = 1

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        whole = (Block("", (self.space.size,), 0),)
        return tuple(self._cut(self.space.layout or whole))

    def _cut(self, layout: Any) -> Iterator[Piece]:
        place = 0
        for block in layout:
            rows, columns = (block.shape[0] if block.shape else 1), int(np.prod(block.shape[1:], dtype=np.int64))
            rank = min(self.rank, rows, columns)
            thin = len(block.shape) > 1 and rank * (rows + columns) < rows * columns
            piece = Piece(block.start, rows, columns, rank if thin else 0, place)
            yield piece
            place += piece.sent

    @property
    def bytes(self) -> int:
        return sum(piece.sent for piece in self.pieces) * self.space.number_bytes

    @property
    def contraction(self) -> float:
        return min((p.rank / min(p.rows, p.columns) for p in self.pieces if p.rank), default=1.0)

    def memory(self, key: Key) -> Tensor:
        """Q^T of each matrix, one after the other, at first random."""
        size = sum(piece.rank * piece.columns for piece in self.pieces)
        drawn = stream(key.seed, key.node, f"low rank {key.round}").standard_normal(size)
        return from_numpy(drawn.astype(self.space.number))

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:
        u = source.x - source.reference if source.reference.size else source.x
        unfit = int(np.count_nonzero(~np.isfinite(u)))
        if unfit:
            return unfit
        carried = (self.memory(key) if memory is None else memory).numpy()
        sent, first = out.view(self.space.number), 0
        for piece in self.pieces:
            part = u[piece.start : piece.start + piece.size]
            if piece.rank:
                last = first + piece.rank * piece.columns
                q = carried[first:last].reshape(piece.rank, piece.columns)
                _factor(part.reshape(piece.rows, piece.columns), q, *piece.factors(sent), key)
                first = last
            else:
                sent[piece.place : piece.place + piece.sent] = part
        unfit = int(np.count_nonzero(~np.isfinite(sent)))
        if not unfit and source.target.size:
            self._decode(sent, Sink(source.target, source.step, True), key)
        return unfit

    def _checked(self, message: Array, key: Key) -> Array:  # noqa: ARG002
        numbers: Array = message.view(self.space.number)
        if not np.isfinite(numbers).all():
            raise MalformedMessageError("found numbers that are not finite; required: finite ones")
        return numbers

    def _decode(self, parts: Array, sink: Sink, key: Key) -> None:  # noqa: ARG002
        for piece in self.pieces:
            target = sink.target[piece.start : piece.start + piece.size]
            if piece.rank:
                _multiply(*piece.factors(parts), target.reshape(piece.rows, piece.columns), *sink[1:])
            else:
                _settle(parts[piece.place : piece.place + piece.sent], target, *sink[1:])


def _factor(matrix: Array, q: Array, to_p: Array, to_q: Array, key: Key) -> None:
    """Factors of `matrix: (rows, columns)` from `q: (r, columns)`, which is the new Q^T then."""
    lengths = _lengths(q)
    if not lengths.all():
        anew = stream(key.seed, key.node, f"low rank anew {key.round}").standard_normal(q.size).reshape(q.shape)
        q[lengths == 0] = anew[lengths == 0]
        lengths = _lengths(q)
    to_p[:] = _orthonormal((q / lengths[:, None]).astype(q.dtype) @ matrix.T)
    np.matmul(to_p, matrix, out=to_q)
    q[:] = to_q


def _lengths(rows: Array) -> Array:
    return np.array([np.linalg.norm(row.astype(np.float64)) for row in rows])


def _orthonormal(rows: Array) -> Array:
    """Rows of length 1 or 0 with the same span, by Gram and Schmidt, twice, in float64."""
    out: Array = rows.astype(np.float64)
    for i in range(len(out)):
        for _ in range(2):
            out[i] -= (out[:i] @ out[i]) @ out[:i]
            length = np.linalg.norm(out[i])
            out[i] = out[i] / length if length > 0 else 0.0
    return out


@compiled
def _multiply(p: Any, q: Any, target: Any, weight: Any, adding: Any) -> None:
    """`target += weight * P Q^T`, or `<- P Q^T`: its products added in ascending order of the columns."""
    values = np.empty(target.shape[1], p.dtype)
    for i in range(target.shape[0]):
        row = target[i]
        for j in range(row.size):
            values[j] = p[0, i] * q[0, j]
        for k in range(1, p.shape[0]):
            for j in range(row.size):
                values[j] += p[k, i] * q[k, j]
        _settle(values, row, weight, adding)


@compiled
def _settle(values: Any, target: Any, weight: Any, adding: Any) -> None:
    settle(target, 0, weight, values, adding)
