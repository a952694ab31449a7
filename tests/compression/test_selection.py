"""The k largest are the k largest, whatever the sample said, and indices come back as they were written."""

import numpy as np
import pytest

from decentral.compression import selection
from decentral.compression.compressor import Source
from decentral.compression.indices import AscendingIndices
from decentral.compression.selection import SAMPLE, largest

MASKS = {
    "float32": np.array([0x7FFFFFFF], np.uint32),
    "float32, coarse": np.array([0x7FFF0000], np.uint32),
    "float64": np.array([(1 << 63) - 1], np.uint64),
}
D = 12 * SAMPLE + 5  # more than the sample, and no multiple of anything


def vectors(d: int, number: type) -> dict[str, np.ndarray]:
    random = np.random.default_rng(d)
    normal = random.standard_normal(d)
    period = np.arange(d) % (d // SAMPLE + 1) == 0
    shapes = {
        "normal": normal,
        "sorted": np.sort(normal),
        "all the same": np.full(d, -0.5),
        "zeros": np.zeros(d),
        "mostly ties": np.sign(normal) * (1 + (normal > 2)),
        "a few spikes": np.where(np.arange(d) % 9973 == 0, 1e6 * normal, 0),
        "a period near the sample's": np.where(period, normal, 1e-3 * normal),
        "one stretch": np.where(np.arange(d) < d // 100, normal, 0),
    }
    return {name: x.astype(number) for name, x in shapes.items()}


@pytest.mark.parametrize("k", [1, 100, D // 100, D // 2, D])
@pytest.mark.parametrize("kind", MASKS)
def test_the_largest_are_found(kind: str, k: int) -> None:
    mask = MASKS[kind]
    number = np.float32 if "32" in kind else np.float64
    for name, u in vectors(D, number).items():
        magnitude = (u.view(mask.dtype) & mask[0]).astype(np.int64)
        expected = np.sort(np.argsort(-magnitude, kind="stable")[:k])
        found = largest(Source(u, u[:0], u[:0], number(1)), k, mask)
        np.testing.assert_array_equal(found.indices, expected, err_msg=name)
        np.testing.assert_array_equal(found.values, u[expected], err_msg=name)


@pytest.mark.parametrize("rank", [1, SAMPLE // 2])
def test_a_sample_that_misleads_costs_time_alone(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A threshold that far too few numbers reach, and one that far more reach than there is room for."""
    asked: list[int] = []
    exact = selection._kth

    def misled(keys: np.ndarray, k: int) -> object:
        asked.append(keys.size)
        return exact(keys, rank if keys.size == SAMPLE else k)

    monkeypatch.setattr(selection, "_kth", misled)
    mask, u = MASKS["float32"], vectors(D, np.float32)["normal"]
    found = largest(Source(u, u[:0], u[:0], np.float32(1)), 500, mask)
    np.testing.assert_array_equal(found.indices, np.sort(np.argsort(-np.abs(u), kind="stable")[:500]))
    assert asked == [SAMPLE, D], "all numbers were not looked at"


@pytest.mark.parametrize("d", [1, 255, 256, 257, 65_535, 65_536, 65_537, 1_000_003])
def test_indices_at_the_ends_of_their_range(d: int) -> None:
    for indices in ([0], [d - 1], sorted({0, d // 2, d - 1}), range(max(0, d - 300), d), range(min(d, 300))):
        form = AscendingIndices(d, len(indices))
        message = np.empty(form.bytes, np.uint8)
        form.write(np.array(indices, np.uint32), message)
        np.testing.assert_array_equal(form.read(message), list(indices))


def test_indices_take_about_nine_bits() -> None:
    assert AscendingIndices(10_000_000, 100_000).bytes == 100_000 + (100_000 + 39_062 + 1 + 7) // 8
    assert AscendingIndices(10_000_000, 100).bytes == 200 + (100 + 152 + 1 + 7) // 8
