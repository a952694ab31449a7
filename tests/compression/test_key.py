"""Streams: the same in every process, others for other keys, and no two of them alike."""

import numpy as np
import pytest

from decentral.compression.key import Key, drawn, drawn_16, halves


def numbers(key: int, count: int = 4096) -> np.ndarray:
    low, high = halves(key)
    return np.array([drawn(low, high, np.uint32(i)) for i in range(count)], np.uint32)


def test_streams_do_not_change_between_versions() -> None:
    """A shared choice is drawn on machines that may have other versions: a change here is a change of the protocol."""
    key = Key(seed=1, round=2, node=3)
    assert (key.own, key.shared) == (0xC313915189C4EC21, 0x8DE7FC4146FDCF0A)
    assert numbers(key.own, 3).tolist() == [540351060, 1947895655, 2220283152]
    assert drawn_16(*halves(key.own), np.uint32(1)) == 1947895655 >> 16


def test_streams_of_other_keys_are_others() -> None:
    keys = [Key(seed, round, node) for seed in range(4) for round in range(20) for node in range(20)]
    assert len({key.own for key in keys} | {key.shared for key in keys}) == 1600 + 80
    assert Key(1, 2, 3).shared == Key(1, 2, 4).shared != Key(1, 3, 3).shared


def test_the_messages_of_a_round_have_streams_of_their_own() -> None:
    keys = [
        Key(seed, round, node, message)
        for seed in range(3)
        for round in range(9)
        for node in range(9)
        for message in range(3)
    ]
    assert len({key.own for key in keys} | {key.shared for key in keys}) == 3 * 9 * 3 * (9 + 1)
    assert Key(1, 2, 3, 1).shared == Key(1, 2, 4, 1).shared


@pytest.mark.parametrize("other", [Key(0, 1, 0), Key(0, 0, 1), Key(1, 0, 0), Key(0, 0, 0, 1)])
def test_numbers_are_uniform_and_independent_of_another_streams(other: Key) -> None:
    one, two = (numbers(key.own) / 2.0**32 - 0.5 for key in (Key(0, 0, 0), other))
    for x in (one, two):
        assert abs(x.mean()) < 5 / np.sqrt(12 * x.size)
        assert abs((x**2).mean() - 1 / 12) < 5 * np.sqrt(1 / 180 / x.size)
        assert abs((x[1:] * x[:-1]).mean()) < 5 / 12 / np.sqrt(x.size)
    assert abs((one * two).mean()) < 5 / 12 / np.sqrt(one.size)
    assert np.intersect1d(one, two).size < 50, "a stream is another one at other places"
