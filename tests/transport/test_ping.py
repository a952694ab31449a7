"""Clocks of other hosts, made here by giving each rank's thread another time."""

from concurrent.futures import ThreadPoolExecutor
from threading import local
from time import perf_counter_ns

import pytest
from torch.distributed import HashStore

from decentral.transport import ping
from decentral.transport.ping import Offset, offset_from_rank_0, offset_of

AHEAD_NS = (0, 5_000_000_000, -70_000_000_000)


def test_each_ranks_clock_is_compared_with_rank_0s(monkeypatch: pytest.MonkeyPatch) -> None:
    here, store = local(), HashStore()
    monkeypatch.setattr(ping, "perf_counter_ns", lambda: perf_counter_ns() + here.ahead_ns)

    def work(rank: int) -> Offset:
        here.ahead_ns = AHEAD_NS[rank]
        return offset_from_rank_0(store, rank, len(AHEAD_NS))

    with ThreadPoolExecutor(len(AHEAD_NS)) as pool:
        found = list(pool.map(work, range(len(AHEAD_NS))))
    assert found[0] == Offset(0, 0)
    for offset, truth in zip(found[1:], AHEAD_NS[1:], strict=True):
        assert abs(offset.ahead_ns - truth) <= offset.round_trip_ns / 2


def test_the_shortest_ping_counts() -> None:
    """A ping that waited on one way only would put the clock wrong by half its wait."""
    exact, delayed = (1_000, 500_000, 1_200), (0, 500_000, 90_000)
    assert offset_of([delayed, exact, delayed]) == Offset(1_100 - 500_000, 200)


def test_an_offset_below_what_a_ping_can_tell_is_none() -> None:
    assert offset_of([(1_000, 1_180, 1_200)]) == Offset(0, 200)
    assert offset_of([(1_000, 1_201, 1_200)]) == Offset(-101, 200)
