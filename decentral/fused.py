"""Passes over flat vectors that read and write each number once, compiled by numba.

A chain of torch operations would walk a vector of 40 MB several times, and memory is what a step waits for. Products
and sums are rounded one by one, in the order given, so the bits are those of NumPy for the same expression.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from decentral.compiled import compiled

CHUNK = 1 << 10
"""Numbers that are worked on at a time: they stay in the core's own cache."""

_SIXTEEN_BITS = np.zeros(0, dtype=np.uint16)

DTYPES = (torch.float32, torch.float64)


def is_fusible(tensors: Sequence[Tensor]) -> bool:
    """Whether the passes below take these vectors: contiguous, in main memory, of one dtype in DTYPES."""
    dtype = tensors[0].dtype
    if dtype not in DTYPES:
        return False
    for tensor in tensors:  # noqa: SIM110  all() would take twice as long, which small vectors feel
        if not (tensor.is_cpu and tensor.dtype is dtype and tensor.is_contiguous()):
            return False
    return True


def sum_into(out: Tensor, weights: Sequence[float], vectors: Sequence[Tensor]) -> None:
    """`out <- ((w_0 v_0 + w_1 v_1) + w_2 v_2) + ...`, each operation rounded to the vectors' dtype.

    Args:
        out: `(d,)`; may be one of the vectors.
        weights: k numbers.
        vectors: k vectors `(d,)`, k >= 1, that `is_fusible` takes together with `out`.
    """
    addresses = np.array([vector.data_ptr() for vector in vectors], dtype=np.uintp)
    flat = out.numpy()
    if flat.ndim != 1:
        flat = flat.reshape(-1)
    _sum_into(flat, np.array(weights, dtype=flat.dtype), addresses)
    torch.autograd.graph.increment_version(out)  # torch saw no write, and whoever watches for one asks torch


def add_flow(total: Tensor, own: Tensor, weights: Sequence[float], vectors: Sequence[Tensor]) -> None:
    """`total <- ((total + w_0 (v_0 - own)) + w_1 (v_1 - own)) + ...`.

    Differences and products are rounded to the vectors' dtype, sums to that of `total`.

    Args:
        total: `(d,)`, which `is_fusible` takes; none of the others.
        own: `(d,)`
        weights: k numbers.
        vectors: k vectors `(d,)`, k >= 0, that `is_fusible` takes together with `own`.
    """
    addresses = np.array([vector.data_ptr() for vector in vectors], dtype=np.uintp)
    mine = own.numpy().reshape(-1)
    _add_flow(total.numpy().reshape(-1), mine, np.array(weights, dtype=mine.dtype), addresses)
    torch.autograd.graph.increment_version(total)


def add_bfloat16(x: Tensor, weights: Sequence[float], vectors: Sequence[Tensor]) -> None:
    """`x <- ((x + w_0 v_0) + w_1 v_1) + ...` for bfloat16 vectors, each operation rounded to the dtype of x.

    Args:
        x: `(d,)`, which `is_fusible` takes.
        weights: k numbers.
        vectors: k contiguous bfloat16 vectors `(d,)`.
    """
    addresses = np.array([vector.data_ptr() for vector in vectors], dtype=np.uintp)
    flat = x.numpy().reshape(-1)
    _add_bfloat16(flat, np.array(weights, dtype=flat.dtype), addresses, _SIXTEEN_BITS)


def warm_up(dtype: torch.dtype) -> None:
    """Compile the passes, or load them from disk, before a clock runs."""
    if dtype in DTYPES:
        sum_into(torch.zeros(1, dtype=dtype), [1.0], [torch.zeros(1, dtype=dtype)])
        for total in {dtype, torch.float64}:
            add_flow(torch.zeros(1, dtype=total), torch.zeros(1, dtype=dtype), [1.0], [torch.zeros(1, dtype=dtype)])
        add_bfloat16(torch.zeros(1, dtype=dtype), [1.0], [torch.zeros(1, dtype=torch.bfloat16)])


@intrinsic  # type: ignore[untyped-decorator]
def _at(typing_context: Any, address: Any, like: Any) -> Any:  # noqa: ARG001  numba's signature
    """The address as a pointer to numbers of the dtype of `like`; so one compilation serves any number of vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(signature.return_type)
        return builder.inttoptr(arguments[0], pointer)

    return types.CPointer(like.dtype)(types.uintp, like), generate


@compiled
def _sum_into(out: Any, weights: Any, addresses: Any) -> None:
    count, scratch = addresses.size, np.empty(CHUNK, out.dtype)
    u, v, w = weights[0], weights[min(1, count - 1)], weights[min(2, count - 1)]
    for start in range(0, out.size, CHUNK):
        stop = min(start + CHUNK, out.size)
        target = out[start:stop]
        # With more than three vectors `out` may be one that is still to be read.
        total = target if count <= 3 else scratch[: stop - start]
        a = numba.carray(_at(addresses[0], out), out.size)[start:stop]
        b = numba.carray(_at(addresses[min(1, count - 1)], out), out.size)[start:stop]
        c = numba.carray(_at(addresses[min(2, count - 1)], out), out.size)[start:stop]
        if count == 1:
            for i in range(total.size):
                total[i] = u * a[i]
        elif count == 2:
            for i in range(total.size):
                total[i] = u * a[i] + v * b[i]
        else:
            for i in range(total.size):
                total[i] = (u * a[i] + v * b[i]) + w * c[i]
        for k in range(3, count):
            part, weight = numba.carray(_at(addresses[k], out), out.size)[start:stop], weights[k]
            if k + 1 < count:
                for i in range(total.size):
                    total[i] += weight * part[i]
            else:
                for i in range(total.size):
                    target[i] = total[i] + weight * part[i]


@compiled
def _add_flow(total: Any, own: Any, weights: Any, addresses: Any) -> None:
    for start in range(0, total.size, CHUNK):
        stop = min(start + CHUNK, total.size)
        target, mine = total[start:stop], own[start:stop]
        for k in range(addresses.size):
            part, weight = numba.carray(_at(addresses[k], own), own.size)[start:stop], weights[k]
            for i in range(target.size):
                target[i] += weight * (part[i] - mine[i])


@compiled
def _add_bfloat16(x: Any, weights: Any, addresses: Any, like: Any) -> None:
    bits = np.empty(CHUNK, np.uint32)
    for start in range(0, x.size, CHUNK):
        target = x[start : min(start + CHUNK, x.size)]
        widened = bits[: target.size]
        values = widened.view(np.float32)
        for k in range(addresses.size):
            part = numba.carray(_at(addresses[k], like), x.size)[start : start + target.size]
            weight = weights[k]
            for i in range(target.size):
                widened[i] = np.uint32(part[i]) << np.uint32(16)
            for i in range(target.size):
                target[i] += weight * values[i]
