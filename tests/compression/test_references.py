"""The compiled passes decode to what plain NumPy computes: bit for bit, but where a sum's order may show."""

import numpy as np
import pytest
import torch

from decentral.compression.low_rank import LowRank
from tests.compression.entries import DTYPES, ENTRIES, KEY, SIZE, decoded, drawn, made
from tests.compression.reference import decoded as plainly

NORMS = ("sign", "qsgd")
"""Their norms are sums, whose last bit may be another in another order; in float32, mostly not."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 7, 1024, SIZE])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_message_decodes_to_what_the_equations_say(name: str, size: int, dtype: torch.dtype) -> None:
    compressor, x = made(name, size, dtype), drawn(size, dtype)
    found, expected = decoded(compressor, x).numpy(), plainly(compressor, x.numpy(), KEY)
    assert found.dtype == expected.dtype
    if isinstance(compressor, LowRank):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-12)
    elif any(norm in name for norm in NORMS):
        np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(found.dtype).eps, atol=0)
    else:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in ENTRIES if "low-rank" not in name])
def test_a_difference_is_encoded_as_the_vector_that_it_is(name: str, dtype: torch.dtype) -> None:
    """Three times the chunk and some, so that what a chunk leaves behind would show in the next."""
    compressor, x, reference = made(name, SIZE, dtype), drawn(SIZE, dtype), drawn(SIZE, dtype, seed=1)
    whole = compressor.encode(x - reference, compressor.message(), KEY)
    fused = compressor.encode_difference(x, reference, compressor.message(), KEY)
    assert torch.equal(whole, fused)
