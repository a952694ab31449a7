"""Triton, where it is installed; and how a kernel is started."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from decentral.errors import MissingEnvironmentError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingEnvironmentError(
        "found no package triton; required: triton, in which compression on a GPU is written; "
        "install it with pip install 'decentral[gpu]', or set device: cpu"
    ) from error

__all__ = ["OPTIONS", "TILE", "aligned", "kernel", "launch", "same_bits_of", "tl", "word"]

OPTIONS = {"enable_fp_fusion": False}
"""Products and sums are rounded one by one, as in main memory: nothing becomes a fused multiply-add."""
TILE = 4096
"""Numbers that one program works on."""
_VARYING = ("low", "high", "weight")
"""Arguments that differ from call to call, and are no reason to compile again."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled by Triton when it is first started, or interpreted where TRITON_INTERPRET is set."""
    return triton.jit(function, do_not_specialize=_VARYING)


def launch(function: Any, programs: int, device: torch.device, *arguments: Any, **constants: Any) -> None:
    """Start so many programs of a kernel, on the current stream of the arguments' GPU."""
    with torch.cuda.device(device.index if device.type == "cuda" else -1):
        function[(programs,)](*arguments, **constants, **OPTIONS)


def word(half: Any) -> int:
    """32 bits as the signed number that a kernel takes them as."""
    return int(half) - (int(half) >> 31 << 32)


def same_bits_of(weight: float) -> int:
    """The bits of a float64, as a signed integer: as a number, Triton would round it to float32."""
    return int(torch.tensor(weight, dtype=torch.float64).view(torch.int64))


def aligned(content: Tensor) -> Tensor:
    """The same bytes, in memory of their own where they begin at no multiple of 16."""
    return content if content.is_contiguous() and content.data_ptr() % 16 == 0 else content.clone()
