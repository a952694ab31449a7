"""Numbers rounded to 16 bits: what they decode to, and that gossip over them keeps the mean."""

from typing import Any

import numpy as np
import pytest
import torch

from decentral.algorithms.dsgd import DSGD
from decentral.compression import Key, Space, compressor_of
from decentral.errors import ConfigError, DivergedError
from decentral.fused import CHUNK, add_bfloat16
from tests.contract.problems import Quadratics, flat, graph
from tests.contract.runs import sgd, simulate


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_every_number_is_rounded_as_torch_rounds_it(name: str, dtype: torch.dtype) -> None:
    """Every pattern of the format, the middles between neighbors, and the numbers beside those."""
    form = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    patterns = torch.arange(0, 1 << 15, dtype=torch.int32).to(torch.int16).view(form)
    values = patterns[patterns.isfinite()].to(torch.float32)
    middles = ((values[1:].double() + values[:-1].double()) / 2).float()
    near = [torch.nextafter(middles, torch.tensor(end)) for end in (0.0, float("inf"))]
    x = torch.cat([part for own in (values, middles, *near) for part in (own, -own)]).to(dtype)
    compressor = compressor_of(name, Space.of(x))
    key = Key(0, 0, 0)
    message = compressor.encode(x, compressor.message(), key)
    assert torch.equal(message.view(form), x.to(form))
    decoded = compressor.decode(message, torch.empty_like(x), key)
    assert torch.equal(decoded, x.to(form).to(dtype))
    assert torch.equal(decoded.signbit(), x.signbit())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "beyond"), [("bf16", (2 - 2**-8) * 2.0**127), ("fp16", 65520.0)])
def test_the_first_number_beyond_a_format_is_refused(name: str, beyond: float, dtype: torch.dtype) -> None:
    largest = torch.nextafter(torch.tensor([beyond]), torch.tensor(0.0)).to(dtype)
    compressor = compressor_of(name, Space.of(largest))
    key = Key(0, 4, 2)
    compressor.encode(largest, compressor.message(), key)
    with pytest.raises(DivergedError, match=r"node 2 diverged in round 4: 1 of the 1 numbers .* too large to be sent"):
        compressor.encode(torch.tensor([-beyond], dtype=dtype), compressor.message(), key)


@pytest.mark.parametrize("order", ["adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"])
@pytest.mark.parametrize(("name", "bits"), [("bf16", 8), ("fp16", 11)])
def test_gossip_of_rounded_models_keeps_the_mean_and_agrees_up_to_rounding(order: str, name: str, bits: int) -> None:
    topology, starts = graph("ring-8"), torch.from_numpy(Quadratics.draw(8).starts())
    algorithm = DSGD(local=sgd(0.1), order=order, compression=name)  # type: ignore[arg-type]
    run = simulate(algorithm, topology, flat(8), starts, rounds=150)
    mean = starts.numpy().mean(axis=0)
    np.testing.assert_allclose(run.models.mean(axis=1), np.broadcast_to(mean, (151, 13)), rtol=0, atol=1e-12)
    apart = np.abs(run.final - mean).max()
    assert 0 < apart <= 8 * 2.0**-bits * np.abs(mean).max()


def test_a_message_takes_half_the_bytes() -> None:
    topology, starts = graph("ring-8"), torch.randn(8, 1000)
    sent = [
        simulate(DSGD(local=sgd(0.1), compression=name), topology, flat(8), starts, 3).bytes_sent[0]
        for name in ("none", "bf16", "fp16")
    ]
    assert sent == [3 * 2 * (64 + 4000), 3 * 2 * (64 + 2000), 3 * 2 * (64 + 2000)]


@pytest.mark.parametrize("compression", ["top-k", "sign", {"name": "qsgd", "bits": 8}, "low-rank"])
def test_dsgd_refuses_what_leaves_too_much_of_a_model_out(compression: Any) -> None:
    with pytest.raises(ConfigError, match="is lost without error feedback; take one of none, bf16, fp16, or CHOCO-SGD"):
        DSGD(local=sgd(0.1), compression=compression)
