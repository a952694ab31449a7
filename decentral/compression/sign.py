"""One bit for each number, and one norm for each tensor: C(x) = (|x|_1 / d) sign(x).

The sign of a zero is the bit that is sent, +1 or -1, at the sender too: had its own copy a 0 there, as torch.sign has,
the copies of one vector at different nodes would part.

Seide et al. 2014; as a contraction, Karimireddy et al. 2019 (arXiv:1901.09847): delta = |x|_1^2 / (d |x|_2^2), which is
1/d at worst and 2/pi for normally distributed numbers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes
from decentral.compression.passes import (
    LANES,
    add_magnitudes,
    drained,
    give_signs,
    infinity,
    load,
    settle,
    signs_of,
    unfit_in,
)
from decentral.fused import CHUNK


class Parts(NamedTuple):
    words: Array  # (ceil(d / 64),) sign bits
    scales: Array  # one for each tensor


@dataclass(frozen=True)
class Sign(Compressor):
    """Bits first, lowest first, then the norms.

    Args:
        norms: of each parameter tensor, or of the whole vector.
    """

    norms: Literal["tensor", "vector"] = "tensor"

    @cached_property
    def ends(self) -> Array:
        """Where each tensor that has a norm of its own ends in the vector."""
        sizes = [int(np.prod(block.shape, dtype=np.int64)) for block in self.space.layout]
        if self.norms == "vector" or sum(sizes) != self.space.size:
            return np.array([self.space.size])
        return np.cumsum([size for size in sizes if size])

    @property
    def _bit_bytes(self) -> int:
        return -(-self.space.size // 8)

    @property
    def bytes(self) -> int:
        return self._bit_bytes + len(self.ends) * self.space.number_bytes

    @property
    def contraction(self) -> float:
        return 1.0 / int(np.diff(self.ends, prepend=0).max())

    @property
    def has_kernels(self) -> bool:
        return True

    def kernels(self) -> Passes:
        return self._on_gpu

    @cached_property
    def _on_gpu(self) -> Passes:
        from decentral.compression.kernels.sign import SignKernels

        return SignKernels(self.space.size, tuple(self.ends.tolist()))

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        words, scales = np.empty(-(-self.space.size // 64), np.uint64), np.empty(len(self.ends), self.space.number)
        unfit = _encode(source.x, source.reference, self.ends, words, scales, infinity(self.space.number))
        if unfit:
            return int(unfit)
        out[: self._bit_bytes] = words.view(np.uint8)[: self._bit_bytes]
        out[self._bit_bytes :] = scales.view(np.uint8)
        if source.target.size:
            _decode(words, scales, self.ends, infinity(self.space.number), source.target, source.step, True)
        return 0

    def _checked(self, message: Array, key: Key) -> Parts:  # noqa: ARG002
        words = np.zeros(-(-self.space.size // 64), np.uint64)
        words.view(np.uint8)[: self._bit_bytes] = message[: self._bit_bytes]
        scales = np.frombuffer(message[self._bit_bytes :].tobytes(), self.space.number)
        if self.space.size % 8 and message[self._bit_bytes - 1] >> (self.space.size % 8):
            raise MalformedMessageError("found bits behind the last sign; required: zeros")
        return Parts(words, required_scales(scales))

    def _decode(self, parts: Parts, sink: Sink, key: Key) -> None:  # noqa: ARG002
        _decode(*parts, self.ends, infinity(self.space.number), *sink)


def required_scales(scales: Array) -> Array:
    """The same scales.

    Raises:
        MalformedMessageError: one is negative (a negative zero too) or not finite.
    """
    wrong = ~np.isfinite(scales) | np.signbit(scales)
    if wrong.any():
        raise MalformedMessageError(f"found the scale {scales[wrong][0]}; required: finite and not negative")
    return scales


@compiled
def _encode(x: Any, reference: Any, ends: Any, words: Any, scales: Any, limit: Any) -> Any:
    u, lanes = np.empty(CHUNK, x.dtype), np.zeros(LANES)
    unfit, tensor, begin = 0, 0, 0
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        unfit += unfit_in(u[:size], limit)
        signs_of(words[start // 64 : (start + size + 63) // 64], u, size, limit)
        done = 0
        while done < size:  # a chunk may hold the ends of several tensors
            upto = min(size, ends[tensor] - start)
            add_magnitudes(lanes, u[done:upto])
            done = upto
            if start + done == ends[tensor]:
                scales[tensor] = drained(lanes) / (ends[tensor] - begin)
                begin = ends[tensor]
                tensor += 1
    return unfit


@compiled
def _decode(words: Any, scales: Any, ends: Any, like: Any, target: Any, weight: Any, adding: Any) -> None:
    values = np.empty(CHUNK, scales.dtype)
    tensor = 0
    for start in range(0, target.size, CHUNK):
        size = min(CHUNK, target.size - start)
        done = 0
        while done < size:
            upto = min(size, ends[tensor] - start)
            values[done:upto] = scales[tensor]
            done = upto
            if start + done == ends[tensor]:
                tensor += 1
        give_signs(values[:size], words[start // 64 : (start + size + 63) // 64], like)
        settle(target, start, weight, values[:size], adding)
