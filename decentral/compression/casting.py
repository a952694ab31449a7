"""Shorter floats: every number rounded by itself, to the nearest, ties to even. Two bytes for each.

    bf16   8 bits of significand, and the range of float32: relative error up to 2^-8
    fp16  11 bits of significand, from 2^-14 to 65504: relative error up to 2^-11; smaller numbers lose precision

Deterministic, and not unbiased. A number beyond the format's range is refused.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes, is_on_gpu
from decentral.compression.passes import key_of, load, settle, unfit_in
from decentral.fused import CHUNK, add_bfloat16, is_fusible


@dataclass(frozen=True)
class Cast(Compressor):
    """A compressor that rounds each number to 16 bits. Vectors that no pass takes are rounded by torch, unchecked."""

    format: ClassVar[torch.dtype]
    error: ClassVar[float]  # relative, at most
    beyond: ClassVar[float]  # float32 numbers from here on round to infinity
    infinity: ClassVar[int]  # its pattern

    @abstractmethod
    def _pass(self, *arguments: Any) -> int: ...

    @property
    def has_kernels(self) -> bool:
        return True

    def kernels(self) -> Passes:
        from decentral.compression.kernels.casting import CastKernels

        name: Literal["bf16", "fp16"] = "bf16" if self.format == torch.bfloat16 else "fp16"
        return CastKernels(self.space.size, name, int(key_of(np.float32(self.beyond))[0]))

    def _is_passed(self, x: Tensor) -> bool:
        return x.is_meta or is_fusible([x]) or (is_on_gpu(x) and self.space.dtype == torch.float32)

    @property
    def bytes(self) -> int:
        return 2 * self.space.size

    @property
    def contraction(self) -> float:
        return 1.0 - self.error**2

    def encode(self, x: Tensor, out: Tensor, key: Key, memory: Tensor | None = None) -> Tensor:
        if not self._is_passed(x):
            out.view(self.format).copy_(x)
            return out
        return super().encode(x, out, key, memory)

    def add(self, x: Tensor, weights: Mapping[int, float], messages: Mapping[int, Tensor], key: Key) -> None:
        if self._is_passed(x):
            super().add(x, weights, messages, key)
            return
        for j, weight in sorted(weights.items()):
            x.add_(messages[j].view(self.format).to(x.dtype) * weight)

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        limit = key_of(np.float32(self.beyond))
        if self.space.number is np.float64:  # which round to float32 first
            below = np.nextafter(np.float32(self.beyond), np.float32(0))
            limit = key_of((np.float64(self.beyond) + np.float64(below)) / 2)
        return self._pass(*source, out.view(np.uint16), limit)

    def _checked(self, message: Array, key: Key) -> Array:  # noqa: ARG002
        patterns = message.view(np.uint16)
        if _largest(patterns) >= self.infinity:
            raise MalformedMessageError("found numbers that are not finite; required: finite ones")
        return patterns


@dataclass(frozen=True)
class BFloat16(Cast):
    format = torch.bfloat16
    error = 2.0**-8
    beyond = 3.3961775292304601e38  # (2 - 2^-8) 2^127
    infinity = 0x7F80

    def add(self, x: Tensor, weights: Mapping[int, float], messages: Mapping[int, Tensor], key: Key) -> None:
        if is_on_gpu(x) or x.is_meta or not is_fusible([x]):
            super().add(x, weights, messages, key)
            return
        ordered = sorted(weights.items())
        for j, _ in ordered:
            self.read(messages[j], key, j)
        add_bfloat16(x, [weight for _, weight in ordered], [messages[j].view(torch.bfloat16) for j, _ in ordered])

    def _pass(self, *arguments: Any) -> int:
        return int(_to_bfloat16(*arguments))

    def _decode(self, parts: Array, sink: Sink, key: Key) -> None:  # noqa: ARG002
        _from_bfloat16(parts, *sink)


@dataclass(frozen=True)
class Float16(Cast):
    format = torch.float16
    error = 2.0**-11
    beyond = 65520.0
    infinity = 0x7C00

    def _pass(self, *arguments: Any) -> int:
        return int(_to_float16(*arguments))

    def _decode(self, parts: Array, sink: Sink, key: Key) -> None:  # noqa: ARG002
        _from_float16(parts, *sink)


@compiled
def _to_bfloat16(x: Any, reference: Any, target: Any, step: Any, out: Any, limit: Any) -> Any:
    u, single = np.empty(CHUNK, x.dtype), np.empty(CHUNK, np.float32)
    bits = single.view(np.uint32)
    unfit = 0
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        unfit += unfit_in(u[:size], limit)
        part = out[start : start + size]
        for i in range(size):
            single[i] = u[i]
        for i in range(size):
            odd = np.uint32((bits[i] >> np.uint32(16)) & np.uint32(1))
            part[i] = np.uint32(bits[i] + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        if target.size:
            for i in range(size):
                bits[i] = np.uint32(part[i]) << np.uint32(16)
            settle(target, start, step, single[:size], True)
    return unfit


@compiled
def _from_bfloat16(patterns: Any, target: Any, weight: Any, adding: Any) -> None:
    single = np.empty(CHUNK, np.float32)
    bits = single.view(np.uint32)
    for start in range(0, target.size, CHUNK):
        part = patterns[start : min(start + CHUNK, target.size)]
        for i in range(part.size):
            bits[i] = np.uint32(part[i]) << np.uint32(16)
        settle(target, start, weight, single[: part.size], adding)


@compiled
def _to_float16(x: Any, reference: Any, target: Any, step: Any, out: Any, limit: Any) -> Any:
    u, single = np.empty(CHUNK, x.dtype), np.empty(CHUNK, np.float32)
    bits, shifted = single.view(np.uint32), np.empty(CHUNK, np.float32)
    moved = shifted.view(np.uint32)
    unfit = 0
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        unfit += unfit_in(u[:size], limit)
        part = out[start : start + size]
        for i in range(size):
            single[i] = u[i]
        for i in range(size):  # the addition rounds what becomes subnormal: half a unit of it is half an ulp of 0.5
            shifted[i] = abs(single[i]) + np.float32(0.5)
        for i in range(size):
            magnitude = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
            odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
            normal = np.uint32(magnitude + np.uint32(0xC8000FFF) + odd) >> np.uint32(13)
            subnormal = np.uint32(moved[i] - np.uint32(0x3F000000))
            small = magnitude < np.uint32(0x38800000)
            part[i] = (subnormal if small else normal) | np.uint32((bits[i] >> np.uint32(16)) & np.uint32(0x8000))
        if target.size:
            _widen(single[:size], part)
            settle(target, start, step, single[:size], True)
    return unfit


@compiled
def _from_float16(patterns: Any, target: Any, weight: Any, adding: Any) -> None:
    single = np.empty(CHUNK, np.float32)
    for start in range(0, target.size, CHUNK):
        part = patterns[start : min(start + CHUNK, target.size)]
        _widen(single[: part.size], part)
        settle(target, start, weight, single[: part.size], adding)


@compiled
def _widen(single: Any, patterns: Any) -> None:
    """float16 to float32: exponent and significand in their new places, and the difference of the biases multiplied."""
    bits = single.view(np.uint32)
    for i in range(single.size):
        pattern = np.uint32(patterns[i])
        sign = np.uint32((pattern & np.uint32(0x8000)) << np.uint32(16))
        bits[i] = np.uint32((pattern & np.uint32(0x7FFF)) << np.uint32(13)) | sign
    for i in range(single.size):
        single[i] *= np.float32(2.0**112)


@compiled
def _largest(patterns: Any) -> Any:
    top = np.uint16(0)
    for i in range(patterns.size):
        top = max(top, np.uint16(patterns[i] & np.uint16(0x7FFF)))
    return top
