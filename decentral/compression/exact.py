"""Nothing is lost: the numbers as they are. C = identity, with which every compressed method must be its plain self."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes
from decentral.compression.passes import infinity, load, settle, unfit_in
from decentral.fused import CHUNK


@dataclass(frozen=True)
class Exact(Compressor):
    @property
    def bytes(self) -> int:
        return self.space.size * self.space.number_bytes

    @property
    def contraction(self) -> float:
        return 1.0

    @property
    def variance(self) -> float:
        return 0.0

    @property
    def linear(self) -> bool:
        return True

    @property
    def has_kernels(self) -> bool:
        return True

    def kernels(self) -> Passes:
        from decentral.compression.kernels.casting import CastKernels

        return CastKernels(self.space.size, "none")

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        return int(_copy(*source, out.view(self.space.number), infinity(self.space.number)))

    def _checked(self, message: Array, key: Key) -> Array:  # noqa: ARG002
        numbers: Array = message.view(self.space.number)
        if not np.isfinite(numbers).all():
            raise MalformedMessageError("found numbers that are not finite; required: finite ones")
        return numbers

    def _decode(self, parts: Array, sink: Sink, key: Key) -> None:  # noqa: ARG002
        _decode(parts, *sink)


@compiled
def _copy(x: Any, reference: Any, target: Any, step: Any, out: Any, limit: Any) -> Any:
    unfit = 0
    for start in range(0, x.size, CHUNK):
        u = out[start : min(start + CHUNK, x.size)]
        load(u, x, reference, start)
        unfit += unfit_in(u, limit)
        settle(target, start, step, u, True)
    return unfit


@compiled
def _decode(numbers: Any, target: Any, weight: Any, adding: Any) -> None:
    for start in range(0, target.size, CHUNK):
        settle(target, start, weight, numbers[start : min(start + CHUNK, target.size)], adding)
