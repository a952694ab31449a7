"""The k numbers of largest magnitude, in about one pass over memory.

A sample gives a threshold that k numbers and some more are sure to reach, or nearly so; one pass gathers those; and the
k-th largest of them is found digit by digit (radix selection), which is exact. Where the sample misled, which costs
time and nothing else, all numbers are selected from. Of equal magnitudes those of lower index come first.
"""

from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Source
from decentral.compression.key import drawn
from decentral.compression.passes import load, mask_at_least, trailing_zeros
from decentral.fused import CHUNK

SAMPLE = 8192
_DIGIT = 11


class Chosen(NamedTuple):
    indices: Array  # (k,) uint32, ascending
    values: Array  # (k,), of x - reference
    unfit: int  # numbers of x - reference that are not finite; the rest is of no use then


def largest(source: Source, k: int, mask: Array) -> Chosen:
    """The k numbers of `x - reference` with the largest keys, bits of the magnitude.

    Args:
        source: d numbers, d >= k >= 1.
        k: how many.
        mask: `(1,)`, of the keys' dtype: the bits of a number that its key has.
    """
    x, reference, size = source.x, source.reference, source.x.size
    sample = min(size, SAMPLE)
    expected = k / size * sample
    rank = ceil(expected + 3.3 * sqrt(expected)) + 4
    threshold = mask[:1] * 0
    room = size
    if rank < sample < size:
        keys = np.empty(sample, mask.dtype)
        _sample(x, reference, keys, mask)
        threshold[0], _ = _kth(keys, rank)
        room = min(size, int((rank + 6 * sqrt(rank) + 16) / sample * size) + 64)
    chosen, count = _gathered(source, threshold, room, size, mask)
    if chosen.unfit:
        return chosen
    if not k <= count <= room:
        keys = np.empty(size, mask.dtype)
        _all_keys(x, reference, keys, mask)
        threshold[0], above = _kth(keys, k)
        return _gathered(source, threshold, k, k - above, mask)[0]
    if count > k:
        _keep(chosen.indices, chosen.values, count, k, mask)
    return Chosen(chosen.indices[:k], chosen.values[:k], 0)


def _gathered(source: Source, threshold: Array, room: int, ties: int, mask: Array) -> tuple[Chosen, int]:
    indices, values = np.empty(room, np.uint32), np.empty(room, source.x.dtype)
    count, unfit = _gather(source.x, source.reference, threshold, ties, mask, indices, values)
    return Chosen(indices, values, int(unfit)), int(count)


@compiled
def _sample(x: Any, reference: Any, keys: Any, mask: Any) -> None:
    value = np.empty(1, x.dtype)
    bits = value.view(mask.dtype)
    for i in range(keys.size):
        # One from each stretch, at a place that no period of the layers falls in with.
        begin = i * x.size // keys.size
        stretch = (i + 1) * x.size // keys.size - begin
        place = begin + np.int64(drawn(np.uint32(0), np.uint32(0), np.uint32(i))) % stretch
        value[0] = x[place] - reference[place] if reference.size else x[place]
        keys[i] = bits[0] & mask[0]


@compiled
def _all_keys(x: Any, reference: Any, keys: Any, mask: Any) -> None:
    u = np.empty(CHUNK, x.dtype)
    bits = u.view(mask.dtype)
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        for i in range(size):
            keys[start + i] = bits[i] & mask[0]


@compiled
def _kth(keys: Any, k: Any) -> Any:
    """The k-th largest key, and how many are larger."""
    number = keys.dtype.type
    remaining, above, prefix, shift = k, 0, number(0), 8 * keys.itemsize
    counts = np.empty(1 << _DIGIT, np.int64)
    while shift > 0:
        width = min(_DIGIT, shift)
        shift -= width
        counts[:] = 0
        low, digit = number(shift), number((1 << width) - 1)
        for i in range(keys.size):
            rest = keys[i] >> low
            if rest >> number(width) == prefix:
                counts[rest & digit] += 1
        d = (1 << width) - 1
        while counts[d] < remaining:
            remaining -= counts[d]
            above += counts[d]
            d -= 1
        prefix = (prefix << number(width)) | number(d)
    return prefix, above


@compiled
def _gather(x: Any, reference: Any, threshold: Any, ties: Any, mask: Any, indices: Any, values: Any) -> Any:
    """Those with keys above the threshold, and up to `ties` at it; counts what there is no room for too."""
    u, keys = np.empty(CHUNK, x.dtype), np.empty(CHUNK, mask.dtype)
    number, bits, room, count, unfit = mask.dtype.type, u.view(mask.dtype), indices.size, 0, 0
    infinity = number(0x7FF0000000000000 if mask.itemsize == 8 else 0x7F800000)
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        top = number(0)
        for i in range(size):
            keys[i] = bits[i] & mask[0]
        for i in range(size):
            top = max(top, keys[i])
        if top >= infinity:
            for i in range(size):
                unfit += keys[i] >= infinity
        if top < threshold[0]:
            continue
        for i in range(size, CHUNK):
            keys[i] = 0
        for begin in range(0, size, 64):
            word = mask_at_least(keys, begin, threshold[0])
            while word:
                i = begin + trailing_zeros(word)
                word &= word - np.uint64(1)
                if i >= size:
                    break
                if keys[i] == threshold[0]:
                    if ties == 0:
                        continue
                    ties -= 1
                if count < room:
                    indices[count] = start + i
                    values[count] = u[i]
                count += 1
    return count, unfit


@compiled
def _keep(indices: Any, values: Any, count: Any, k: Any, mask: Any) -> None:
    """Move the k of largest keys, of the first `count`, to the front, in order."""
    keys = np.empty(count, mask.dtype)
    bits = values.view(mask.dtype)
    for i in range(count):
        keys[i] = bits[i] & mask[0]
    least, above = _kth(keys, k)
    ties, kept = k - above, 0
    for i in range(count):  # without a branch where it could not be foretold
        taken = keys[i] > least
        if keys[i] == least and ties > 0:
            taken, ties = True, ties - 1
        indices[kept], values[kept] = indices[i], values[i]
        kept += taken
