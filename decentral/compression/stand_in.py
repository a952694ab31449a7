"""A smaller space of vectors, and a compressor for it that leaves out as much, for what is searched for offline.

How a compressor behaves depends on the share that it keeps of a vector (delta, of its contraction), not on how many
numbers there are. So a search takes 1000 numbers (400 on large graphs) where a model has more, and with them

    top-k, threshold, random-k, sketch    the same share of the numbers, also where k is given absolutely
    block-top-k                           the same blocks; where they are larger than that, top-k of the same share
    low-rank                              a square matrix of rank 1 of the same share as the matrix of which least is
                                          kept; of normally distributed numbers the first r of min(m, n) singular
                                          values hold about r (1/sqrt(m) + 1/sqrt(n))^2
    the others                            the same options, on one tensor

Values that are rounded so little that it does not matter, such as bf16 of top-k, count as they are.

One that keeps less than 1/128 takes so many rounds to get anywhere that it is searched for with 1/128. Between small
shares time alone is different: in delta' / delta as many rounds the same comes about, if what a round does besides is
scaled by delta / delta'. So the consensus step for delta is that for delta', times delta / delta'. The same is done
where the share depends on how many numbers there are (qsgd with one norm for a large vector). Against searches with all
numbers on a ring of 9 it was within one step of the grid for top-k and random-k of 1/400 and for qsgd of 40,000
numbers; for low-rank of a matrix (64, 256) it was smaller, by a factor of up to 1.8.
"""

from math import pi, sqrt
from typing import Any, NamedTuple

import torch

from decentral.compression import compressor_of
from decentral.compression.compressor import Compressor, Space
from decentral.compression.low_rank import LowRank
from decentral.compression.sign import Sign
from decentral.compression.sparse import Sparse
from decentral.config import compression as config
from decentral.errors import ConfigError
from decentral.peer import Block

SIZE = 1000
_SURE = 0.98
"""Of a share of the values that is larger, the values count as they are."""
LEAST = 1 / 128
"""The least share that is searched with: the default of block-top-k."""
_ALIKE = 1.2
"""Shares that differ by no more than this factor, half a step of the grid of gammas, count as the same."""


class StandIn(NamedTuple):
    section: Any
    space: Space
    scale: float  # what a consensus step that was found with it is multiplied by


def stand_in(section: Any, space: Space, numbers: int = SIZE) -> StandIn:
    """What is searched with in place of a section's compressor of a space, for at most so many numbers.

    Raises:
        ConfigError: the compressor's error may be larger than what it compresses.
    """
    compressor = compressor_of(section, space)
    share = kept(compressor)
    if share <= 0:
        raise ConfigError(
            f"the squared error of {section.name} may be {1 - share:.3g} times the square of {space.size:,} numbers, "
            "and no consensus step helps then; take unbiased: false, smaller blocks or more bits",
            section.path or None,
        )
    if isinstance(compressor, LowRank):
        return _low_rank(section, compressor, numbers)
    size = min(space.size, numbers)
    if isinstance(compressor, Sparse) and kept(compressor.values) > _SURE:
        section = section.model_copy(update={"values": config.NoCompression(name="none")})
    smaller = _sparser(section, compressor, size) if isinstance(compressor, Sparse) else section
    if isinstance(section, config.Sketch):
        smaller = section.model_copy(update={"fraction": (_count(share, size) + 0.5) / size})
    one = Space(size, _number(space))
    scale = share / kept(compressor_of(smaller, one))
    return StandIn(smaller, one, 1.0 if 1 / _ALIKE < scale < _ALIKE else scale)


def _number(space: Space) -> torch.dtype:
    return torch.float64 if space.dtype == torch.float64 else torch.float32


def kept(compressor: Compressor) -> float:
    """delta, for normally distributed numbers where it depends much on them; 0 or less where nothing is sure."""
    if isinstance(compressor, Sign):
        return 2 / pi
    if isinstance(compressor, Sparse) and not compressor.unbiased:
        return compressor.choice.contraction * kept(compressor.values)
    if isinstance(compressor, LowRank):
        return min((_held(p.rank, p.rows, p.columns) for p in compressor.pieces if p.rank), default=1.0)
    if compressor.contraction is not None:
        return compressor.contraction
    return 1.0 if compressor.variance is None else 1 - compressor.variance


def _held(rank: int, rows: int, columns: int) -> float:
    """Of a matrix of normally distributed numbers, what its largest singular values hold."""
    return min(1.0, rank * (1 / sqrt(rows) + 1 / sqrt(columns)) ** 2)


def _count(share: float, size: int) -> int:
    return min(size, max(1, round(size * max(share, LEAST))))


def _sparser(section: Any, compressor: Sparse, size: int) -> Any:
    share = compressor.choice.count / compressor.space.size
    if isinstance(section, config.BlockTopK):
        if section.block <= size and share >= LEAST:
            return section
        return config.TopK(name="top-k", k=_count(share, size), values=section.values)
    return section.model_copy(update={"fraction": None, "k": _count(share, size)})


def _low_rank(section: Any, compressor: LowRank, numbers: int) -> StandIn:
    pieces = [piece for piece in compressor.pieces if piece.rank]
    dtype = _number(compressor.space)
    if not pieces:
        return StandIn(config.NoCompression(name="none"), Space(numbers, dtype), 1.0)
    least = min(pieces, key=lambda piece: _held(piece.rank, piece.rows, piece.columns))
    rows, columns, rank = least.rows, least.columns, least.rank
    share = _held(rank, rows, columns)
    if rows * columns > numbers:
        rank = 1
        rows = columns = max(3, min(int(sqrt(numbers)), round(4 / share)))
    layout = (Block("matrix", (rows, columns), 0),)
    scale = share / _held(rank, rows, columns)
    smaller = section.model_copy(update={"rank": rank})
    return StandIn(smaller, Space(rows * columns, dtype, layout), 1.0 if 1 / _ALIKE < scale < _ALIKE else scale)
