"""What each compressor must decode to, in plain NumPy, as its file's equations have it and with no regard to speed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from decentral.compression import Compressor, Key
from decentral.compression.casting import BFloat16, Float16
from decentral.compression.exact import Exact
from decentral.compression.low_rank import LowRank
from decentral.compression.natural import Natural
from decentral.compression.quantized import Quantized
from decentral.compression.random_k import Random
from decentral.compression.sign import Sign
from decentral.compression.sketch import Sketch
from decentral.compression.sparse import Sparse
from decentral.compression.top_k import Largest, LargestOfBlocks

Array = np.ndarray[Any, Any]


def bits(stream: int, numbers: Array) -> Array:
    """The stream's 32-bit numbers of those indices."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint32) + np.uint32(stream & 0xFFFFFFFF)
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D) + np.uint32(stream >> 32)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
        return x ^ (x >> np.uint32(16))


def exact(_: Exact, u: Array, key: Key) -> Array:
    return u.copy()


def cast(c: BFloat16 | Float16, u: Array, key: Key) -> Array:
    return torch.from_numpy(u).to(c.format).to(c.space.dtype).numpy()


def sign(c: Sign, u: Array, key: Key) -> Array:
    out = np.empty_like(u)
    for begin, end in zip([0, *c.ends[:-1]], c.ends, strict=True):
        part = u[begin:end]
        # In 64 lanes for each whole chunk's piece, as the passes sum: with float64 the order does not show in float32.
        scale = u.dtype.type(np.abs(part.astype(np.float64)).sum() / part.size)
        out[begin:end] = np.copysign(scale, part)
    return out


def quantized(c: Quantized, u: Array, key: Key) -> Array:
    number, out = u.dtype.type, np.zeros_like(u)
    span = min(c.block or u.size, u.size)
    divisor = 1.0 if c.unbiased else 1 + min(span / (4 * c.levels**2), span**0.5 / c.levels)
    for begin in range(0, u.size, span):
        part = u[begin : begin + span]
        scale = number(np.abs(part).max() if c.norm == "inf" else np.sqrt((part.astype(np.float64) ** 2).sum()))
        if scale * number(2.0**120 if number is np.float32 else 2.0**1000) < 1:
            continue
        t = part * (number(c.levels) / scale * number(1 - 2.0**-22))
        if c.stochastic:
            noise = (bits(key.own, begin + np.arange(part.size)) >> np.uint32(16)).astype(np.float32)
            level = np.trunc(t + (noise * np.float32(2.0**-16) + np.float32(128))) - 128
        else:
            level = np.rint(t)
        out[begin : begin + span] = level.astype(np.int32).astype(number) * (number(1 / (c.levels * divisor)) * scale)
    return out


def natural(c: Natural, u: Array, key: Key) -> Array:
    noise = bits(key.own, np.arange(u.size))
    if u.dtype == np.float32:
        magnitude = np.abs(u).view(np.uint32) + (noise >> np.uint32(9))
        power = np.minimum(magnitude >> np.uint32(23), 254).astype(np.uint32) << np.uint32(23)
    else:
        magnitude = np.abs(u).view(np.uint64) + (noise.astype(np.uint64) << np.uint64(20))
        power = np.minimum(magnitude >> np.uint64(52), 2046).astype(np.uint64) << np.uint64(52)
    return np.copysign(power.view(u.dtype), u)


def chosen(c: Sparse, u: Array, key: Key) -> Array:
    """The indices."""
    match c.choice:
        case Largest(k=k, coarse=coarse):
            magnitude = np.abs(u).view(np.uint32 if u.dtype == np.float32 else np.uint64)
            magnitude = magnitude >> (0 if not coarse else 16 if u.dtype == np.float32 else 45)
            return np.sort(np.argsort(-magnitude.astype(np.int64), kind="stable")[:k])
        case LargestOfBlocks(block=block, keep=keep):
            found = []
            for begin in range(0, u.size, block):
                part = u[begin : begin + block]
                kept = keep if part.size == block else -(-part.size * keep // block)
                found.append(begin + np.sort(np.argsort(-np.abs(part), kind="stable")[:kept]))
            return np.concatenate(found)
        case Random(k=k, is_shared=shared):
            stream, d = key.shared if shared else key.own, u.size
            offset = int(bits(stream, np.array([0xFFFFFFFF]))[0]) * d >> 32
            noise = bits(stream, np.arange(k)).tolist()
            begins = [i * d // k for i in range(k + 1)]
            places = [b + (n * (e - b) >> 32) for b, e, n in zip(begins, begins[1:], noise, strict=False)]
            return (np.array(places) + offset) % d
    raise AssertionError(c.choice)


def sparse(c: Sparse, u: Array, key: Key) -> Array:
    indices = chosen(c, u, key)
    values = u[indices]
    if c.unbiased and c.choice.probability:
        values = values * u.dtype.type(1 / c.choice.probability)
    out = np.zeros_like(u)
    out[indices] = decoded(c.values, values, key)
    return out


def sketch(c: Sketch, u: Array, key: Key) -> Array:
    m, d = c.sums, u.size
    rows, words = -(-d // m), -(-m // 32)
    # A row's last, shorter stretch of 32 takes a number of its own; a last row takes as many as it needs.
    noise = bits(key.shared, np.arange(rows * words)).reshape(rows, words)
    flips = ((noise[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1).reshape(rows, -1)[:, :m].reshape(-1)[:d]
    signs = np.where(flips, -1, 1).astype(u.dtype)
    sums = np.zeros(m, u.dtype)
    for begin in range(0, d, m):
        part = (signs * u)[begin : begin + m]
        sums[: part.size] += part
    if not c.unbiased:
        sums /= -(-(d - np.arange(m)) // m).astype(u.dtype)
    return np.resize(sums, rows * m)[:d] * signs


def low_rank(c: LowRank, u: Array, key: Key) -> Array:
    """From a random Q. numpy's own QR: the same projection, up to rounding."""
    q, out = c.memory(key).numpy(), u.copy()
    for piece in c.pieces:
        if piece.rank:
            own, q = q[: piece.rank * piece.columns].reshape(piece.rank, -1), q[piece.rank * piece.columns :]
            matrix = u[piece.start : piece.start + piece.size].reshape(piece.rows, piece.columns).astype(np.float64)
            basis = np.linalg.qr(matrix @ own.T.astype(np.float64))[0]
            out[piece.start : piece.start + piece.size] = (basis @ (basis.T @ matrix)).reshape(-1)
    return out


REFERENCES: dict[type[Compressor], Callable[[Any, Array, Key], Array]] = {
    Exact: exact,
    BFloat16: cast,
    Float16: cast,
    Sign: sign,
    Quantized: quantized,
    Natural: natural,
    Sparse: sparse,
    Sketch: sketch,
    LowRank: low_rank,
}


def decoded(c: Compressor, u: Array, key: Key) -> Array:
    """C(u)."""
    return REFERENCES[type(c)](c, u, key)
