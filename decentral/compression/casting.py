"""bfloat16: every number rounded to 8 bits of significand, to the nearest, ties to even. Two bytes for each.

Deterministic, with relative error up to 2^-9 per number; not unbiased, and no number of its range is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from decentral.compression.compressor import Compressor
from decentral.fused import add_bfloat16, is_fusible


@dataclass(frozen=True)
class BFloat16(Compressor):
    def message(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape, dtype=torch.bfloat16, device=x.device)

    def encode(self, x: Tensor, out: Tensor) -> Tensor:
        return out.copy_(x)

    def add_(self, x: Tensor, weights: Mapping[int, float], messages: Mapping[int, Tensor]) -> None:
        if x.is_meta:  # a dry run has no numbers
            return
        ordered = sorted(weights.items())
        if is_fusible([x]) and all(messages[j].is_contiguous() for j, _ in ordered):
            add_bfloat16(x, [weight for _, weight in ordered], [messages[j] for j, _ in ordered])
            return
        for j, weight in ordered:
            x.add_(messages[j].to(x.dtype) * weight)
