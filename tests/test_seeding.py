"""Streams of random numbers: the same for ever and everywhere, and a different one for each seed, node and purpose."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.seeding import integer_seed, stream, turn_stream

GOLDEN = [
    ((0, 0, "batches"), [3665040068, 1525538800, 3720528157], 3276069629222062434),
    ((0, -1, "model"), [2164524734, 3617021843, 2141073832], 7767495263383585631),
    ((0, 1, "batches"), [2900319572, 2600955502, 612442624], 5585509411170791082),
    ((1, 0, "batches"), [2412984708, 3491566158, 2011813565], 7498081231421676738),
    ((2**63, 999, "partition"), [2464929697, 2489339939, 1335113489], 5345816814548282320),
]

keys = st.tuples(st.integers(0, 2**63), st.integers(-1, 10_000), st.sampled_from(["batches", "model", "partition"]))
Key = tuple[int, int, str]


@pytest.mark.parametrize(("key", "first", "integer"), GOLDEN)
def test_streams_are_the_same_for_ever(key: Key, first: list[int], integer: int) -> None:
    """A published seed must give the published run: a change here is a change of every result that was ever quoted."""
    assert stream(*key).integers(2**32, size=3).tolist() == first
    assert integer_seed(*key) == integer


def test_streams_do_not_depend_on_the_process() -> None:
    """Python salts `hash` of texts in each process: a purpose hashed with it gave every rank other batches."""
    program = "from decentral.seeding import integer_seed; print(integer_seed(0, 0, 'batches'))"
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONHASHSEED": salt}, check=True
        )
        assert int(done.stdout) == GOLDEN[0][2]


@given(keys, keys)
def test_streams_are_equal_only_for_equal_keys(one: Key, other: Key) -> None:
    same = stream(*one).integers(2**63, size=2).tolist() == stream(*other).integers(2**63, size=2).tolist()
    assert same == (one == other)


def test_neighboring_keys_are_all_different() -> None:
    """The shared stream, node -1, is none of the nodes' own; seed 1 at node 0 is not seed 0 at node 1."""
    found = {integer_seed(*key) for key in product(range(8), range(-1, 64), ("batches", "model", "partition", "drop"))}
    assert len(found) == 8 * 65 * 4


def test_streams_of_neighboring_nodes_are_not_correlated() -> None:
    draws = np.stack([stream(0, node, "batches").standard_normal(4096) for node in range(-1, 31)])
    off_diagonal = np.corrcoef(draws)[~np.eye(32, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(4096)


@given(keys)
def test_an_integer_seed_is_what_torch_takes(key: Key) -> None:
    assert 0 <= integer_seed(*key) < 2**63


def test_reading_one_stream_does_not_move_another() -> None:
    first, second = stream(0, 0, "batches"), stream(0, 0, "batches")
    first.standard_normal(100)
    assert second.integers(2**32) == GOLDEN[0][1][0]


def test_a_turn_is_drawn_without_those_before_it() -> None:
    drawn = [turn_stream(3, turn, "matcha").random() for turn in range(100)]
    assert drawn == [turn_stream(3, turn, "matcha").random() for turn in reversed(range(100))][::-1]
    assert len(set(drawn)) == 100
    assert turn_stream(3, 5, "matcha").random() != turn_stream(4, 5, "matcha").random()
    assert turn_stream(3, 5, "matcha").random() != turn_stream(3, 5, "random-matchings").random()
