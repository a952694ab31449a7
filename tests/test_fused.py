"""Fused passes give the bits of the plain expression, whichever vector is the target."""

import numpy as np
import pytest
import torch

from decentral.fused import CHUNK, add_flow, is_fusible, sum_into
from decentral.peer import weighted_sum

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 7, CHUNK, 3 * CHUNK + 5])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_a_sum_is_rounded_as_numpy_rounds_it(dtype: torch.dtype, size: int, count: int) -> None:
    random = np.random.default_rng(count)
    vectors = [torch.from_numpy(random.standard_normal(size)).to(dtype) for _ in range(count)]
    weights = random.standard_normal(count).tolist()
    scalar = vectors[0].numpy().dtype.type
    expected = scalar(weights[0]) * vectors[0].numpy()
    for weight, vector in zip(weights[1:], vectors[1:], strict=True):
        expected = expected + scalar(weight) * vector.numpy()
    for target in (None, *range(count)):
        own = [vector.clone() for vector in vectors]
        out = torch.empty(size, dtype=dtype) if target is None else own[target]
        sum_into(out, weights, own)
        assert out.numpy().tobytes() == expected.tobytes(), target


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_summed_in_ascending_order_of_nodes(dtype: torch.dtype) -> None:
    vectors = {j: torch.randn(50, generator=torch.Generator().manual_seed(j), dtype=dtype) for j in (3, 0, 2)}
    weights = {3: 0.5, 0: 0.2, 2: 0.3}
    expected = torch.empty(50, dtype=dtype)
    sum_into(expected, [0.2, 0.3, 0.5], [vectors[0], vectors[2], vectors[3]])
    assert torch.equal(weighted_sum(weights, vectors, out=vectors[2]), expected)


def test_a_write_is_seen() -> None:
    """numba writes past torch. A payload mixed in place between Post and Collect went unnoticed, and so did a model
    that was moved before its gradient: both are found by torch's count of writes."""
    out = torch.zeros(3)
    before = out._version
    weighted_sum({0: 0.5, 1: 0.5}, {0: out, 1: torch.ones(3)}, out=out)
    assert out._version > before


def test_other_vectors_take_torchs_operations() -> None:
    """Half precision, strided and meta tensors are summed by torch; a dry run has no numbers at all."""
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    strided = torch.arange(6.0)[::3]
    assert not is_fusible([half])
    assert not is_fusible([strided, torch.zeros(2)])
    assert weighted_sum({0: 0.5, 1: 2.0}, {0: half, 1: half}, out=torch.empty_like(half)).tolist() == [2.5, 5.0]
    assert weighted_sum({0: 2.0}, {0: strided}, out=strided).tolist() == [0.0, 6.0]
    assert weighted_sum({0: 2.0}, {0: torch.empty(3, device="meta")}, out=torch.empty(3, device="meta")).is_meta


@pytest.mark.parametrize("wide", [False, True], ids=["own dtype", "float64"])
@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("size", [1, CHUNK, 2 * CHUNK + 3])
def test_flow_is_what_torch_computes(size: int, count: int, wide: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    own, total = torch.randn(size, generator=generator), torch.randn(size, generator=generator)
    total = total.double() if wide else total
    vectors = [torch.randn(size, generator=generator) for _ in range(count)]
    weights = [0.1, 0.3, 0.35, 0.2][:count]
    expected = total.clone()
    for weight, vector in zip(weights, vectors, strict=True):
        expected = expected + weight * (vector - own)
    before = total._version
    add_flow(total, own, weights, vectors)
    assert torch.equal(total, expected)
    assert total._version > before
