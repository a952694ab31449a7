"""The pieces that compiled passes over flat vectors are made of: chunk by chunk, in a core's own cache.

A pass reads a chunk of `x - reference` into scratch, works on it there, and adds what was sent to `target`, so each
vector is read and written once however many operations there are. A vector that is absent has no numbers. Nothing is
contracted to fused multiply-adds and no sum is reordered: the bits are the same on every machine.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from decentral.compiled import compiled

LANES = 64
"""Sums run in so many lanes, each in ascending order, and lanes are added in ascending order."""


@intrinsic  # type: ignore[untyped-decorator]
def mask_at_least(typing_context: Any, keys: Any, start: Any, threshold: Any) -> Any:  # noqa: ARG001  numba's signature
    """64 bits, of the 64 unsigned numbers from `keys[start]` on: bit j is set where `keys[start + j] >= threshold`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        number = context.get_value_type(keys.dtype)
        vector = ir.VectorType(number, 64)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        loaded = builder.load(address)
        loaded.align = keys.dtype.bitwidth // 8
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        limit = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)
        return builder.bitcast(builder.icmp_unsigned(">=", loaded, limit), ir.IntType(64))

    return types.uint64(keys, types.intp, keys.dtype), generate


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(typing_context: Any, word: Any) -> Any:  # noqa: ARG001  numba's signature
    """How many low bits of a word that is not 0 are 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate


@compiled
def load(out: Any, x: Any, reference: Any, start: Any) -> None:
    """`out <- (x - reference)[start : start + out.size]`."""
    a = x[start : start + out.size]
    if reference.size:
        b = reference[start : start + out.size]
        for i in range(out.size):
            out[i] = a[i] - b[i]
    else:
        for i in range(out.size):
            out[i] = a[i]


@compiled
def settle(target: Any, start: Any, weight: Any, values: Any, adding: Any) -> None:
    """`target[start:] += weight * values`, or `<- values`; nothing where there is no target."""
    if target.size == 0:
        return
    part = target[start : start + values.size]
    if adding:
        for i in range(values.size):
            part[i] += weight * values[i]
    else:
        for i in range(values.size):
            part[i] = values[i]


@compiled
def largest_key(values: Any, like: Any) -> Any:
    """The largest key of the values: the bits of |value|, unsigned integers that order as magnitudes do.

    `like` has the dtype of unsigned integers of the values' width.
    """
    number, bits = like.dtype.type, values.view(like.dtype)
    magnitude, top = number(~number(0) >> number(1)), number(0)
    for i in range(bits.size):
        top = max(top, number(bits[i] & magnitude))
    return top


@compiled
def unfit_in(values: Any, limit: Any) -> Any:
    """How many values have keys of `limit[0]` or more."""
    count = 0
    if largest_key(values, limit) >= limit[0]:
        number, bits = limit.dtype.type, values.view(limit.dtype)
        for i in range(bits.size):
            count += number(bits[i] & (~number(0) >> number(1))) >= limit[0]
    return count


@compiled
def add_magnitudes(lanes: Any, values: Any) -> None:
    """Add |values| to `lanes: (LANES,)` float64, number i to lane i mod LANES."""
    whole = values.size - values.size % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += abs(np.float64(values[start + lane]))
    for i in range(whole, values.size):
        lanes[i - whole] += abs(np.float64(values[i]))


@compiled
def add_squares(lanes: Any, values: Any) -> None:
    """Add values^2 to `lanes: (LANES,)` float64, number i to lane i mod LANES."""
    whole = values.size - values.size % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            value = np.float64(values[start + lane])
            lanes[lane] += value * value
    for i in range(whole, values.size):
        value = np.float64(values[i])
        lanes[i - whole] += value * value


@compiled
def drained(lanes: Any) -> Any:
    """The sum of the lanes, which are zero then."""
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
        lanes[lane] = 0.0
    return total


@compiled
def signs_of(words: Any, values: Any, size: Any, like: Any) -> None:
    """The sign bits of the first `size` values, 64 to a word. `values: (CHUNK,)` are zero from there on afterwards."""
    for i in range(size, values.size):
        values[i] = 0
    number, bits = like.dtype.type, values.view(like.dtype)
    top = number(number(1) << number(8 * like.itemsize - 1))
    for i in range(words.size):
        words[i] = mask_at_least(bits, 64 * i, top)


@compiled
def give_signs(values: Any, words: Any, like: Any) -> None:
    """Set the sign of each value by the bits of the words; `like` has the dtype of unsigned numbers of that width."""
    number, bits, halves = like.dtype.type, values.view(like.dtype), words.view(np.uint32)
    width, magnitude = number(8 * like.itemsize - 1), number(~number(0) >> number(1))
    for h in range((values.size + 31) // 32):
        word = number(halves[h])
        part = bits[32 * h : min(32 * h + 32, values.size)]
        for i in range(part.size):
            part[i] = number(part[i] & magnitude) | number(number(word >> number(i)) << width)


def infinity(number: Any) -> np.ndarray[Any, Any]:
    """The key of infinity, `(1,)`, in the unsigned integers of the width of `number`, a NumPy type."""
    return key_of(number(np.inf))


def key_of(number: Any) -> np.ndarray[Any, Any]:
    """The key of a number, `(1,)`: as an array, since its dtype is also that of the pass's keys."""
    magnitude: np.ndarray[Any, Any] = np.abs(np.array([number]))
    return magnitude.view(np.uint64 if magnitude.dtype == np.float64 else np.uint32)
