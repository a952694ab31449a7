"""Where vectors on a GPU go: to the kernels of their compressor, which only then import triton."""

from typing import Any, Protocol

import torch
from torch import Tensor

from decentral.compression.key import Key


class Passes(Protocol):
    """What a compressor runs on a GPU: its methods `_encode`, `_checked` and `_decode`, for tensors.

    Numbers are float32; what is added to may be float64. The message is the one that main memory makes of them.
    """

    def encode(
        self, x: Tensor, reference: Tensor | None, target: Tensor | None, step: float, out: Tensor, key: Key
    ) -> int: ...

    def checked(self, message: Tensor, key: Key) -> Any: ...

    def decode(self, parts: Any, target: Tensor, weight: float, adding: bool, key: Key) -> None: ...


def is_on_gpu(x: Tensor) -> bool:
    """Whether kernels take this vector, rather than the passes for main memory."""
    return x.is_cuda


def flat_on_gpu(vector: Tensor, size: int, dtype: torch.dtype, wider: torch.dtype | None = None) -> Tensor:
    """The vector as kernels take it, `(size,)`.

    Args:
        dtype: that the compressor was made for.
        wider: that it may have instead.

    Raises:
        ValueError: it has another length or dtype, or is not contiguous.
    """
    whole = vector.is_contiguous() and vector.numel() == size
    if dtype != torch.float32 or vector.dtype not in (dtype, wider) or not whole:
        raise ValueError(
            f"found {vector.numel()} numbers of {vector.dtype} on {vector.device}; required on a GPU: contiguous "
            f"vectors of torch.float32, and a compressor made for them (this one is for {size} of {dtype})"
        )
    return vector.detach().view(-1)
