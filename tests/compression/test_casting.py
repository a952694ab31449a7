"""bfloat16 messages: what they decode to, and that gossip over them keeps the mean."""

import numpy as np
import pytest
import torch

from decentral.algorithms.dsgd import DSGD
from decentral.compression import COMPRESSORS
from decentral.fused import CHUNK, add_bfloat16
from tests.contract.problems import Quadratics, flat, graph
from tests.contract.runs import sgd, simulate

BF16 = COMPRESSORS["bf16"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, CHUNK - 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_fused_sum_is_the_plain_one(dtype: torch.dtype, size: int, count: int) -> None:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(size, generator=generator, dtype=dtype)
    vectors = [torch.randn(size, generator=generator).bfloat16() for _ in range(count)]
    weights = [0.3, -0.7, 1.5, 0.1][:count]
    expected = x.clone()
    for weight, vector in zip(weights, vectors, strict=True):
        expected = expected + vector.to(dtype) * weight
    add_bfloat16(x, weights, vectors)
    assert torch.equal(x, expected)


def test_every_number_of_the_format_is_decoded() -> None:
    """Subnormals, infinities, signed zeros: all 65,536 patterns."""
    patterns = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = torch.zeros(1 << 16)
    add_bfloat16(x, [1.0], [patterns])
    np.testing.assert_array_equal(x.numpy(), patterns.float().numpy())


@pytest.mark.parametrize("order", ["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"])
def test_gossip_of_rounded_models_keeps_the_mean_and_agrees_up_to_rounding(order: str) -> None:
    topology, starts = graph("ring-8"), torch.from_numpy(Quadratics.draw(8).starts())
    algorithm = DSGD(local=sgd(0.1), order=order, compression="bf16")  # type: ignore[arg-type]
    run = simulate(algorithm, topology, flat(8), starts, rounds=150)
    mean = starts.numpy().mean(axis=0)
    np.testing.assert_allclose(run.models.mean(axis=1), np.broadcast_to(mean, (151, 13)), rtol=0, atol=1e-12)
    apart = np.abs(run.final - mean).max()
    assert 0 < apart <= 8 * 2**-8 * np.abs(mean).max()


def test_a_bf16_message_takes_half_the_bytes() -> None:
    topology, starts = graph("ring-8"), torch.randn(8, 1000)
    sent = [
        simulate(DSGD(local=sgd(0.1), compression=name), topology, flat(8), starts, 3).bytes_sent[0]
        for name in ("none", "bf16")
    ]
    assert sent == [3 * 2 * (64 + 4000), 3 * 2 * (64 + 2000)]
