"""How ranks find each other: what the launcher must say, whom they refuse, and whose fault is told."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from decentral.config import Transport
from decentral.errors import ConfigError, DivergedError, LostNeighborError, MissingEnvironmentError
from decentral.transport.launcher import Launched
from decentral.transport.world import World
from tests.contract.ranks import on_ranks

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> str:
    """A free port, in the variable that `join` reads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("MASTER_PORT", port)
    return port


def join(rank: int, size: int, digest: int = 7, nodes: int | None = None, timeout_s: float = 30.0) -> World:
    found = Launched("a test", rank, size, "127.0.0.1", True, port=int(os.environ.get("MASTER_PORT", "1")))
    return World.join(found, Transport(connect_timeout_s=timeout_s), nodes or size, digest)


def outcomes(size: int, digest_of: Callable[[int], int]) -> list[str]:
    """What becomes of ranks that join and ask rank 0; it stays until all have asked, as in a run."""
    worlds = []

    def told(rank: int) -> str:
        try:
            worlds.append(world := join(rank, size, digest_of(rank)))
            return world.agree("folder", f"runs/{rank}")
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(told, range(size)))


def test_ranks_meet_and_agree_on_what_the_first_says(meeting: str) -> None:
    assert outcomes(3, lambda rank: 7) == ["runs/0"] * 3


def test_a_rank_with_another_experiment_is_refused_and_named(meeting: str) -> None:
    """Two ranks with other batch sizes would train to the end, and the curves would look plausible."""
    found = outcomes(3, lambda rank: 8 if rank == 2 else 7)
    assert found[:2] == ["runs/0", "runs/0"]
    assert found[2] == ("node 2 reads another experiment than node 0; give every rank the same file and -s options")


def test_another_number_of_ranks_than_nodes_is_refused_before_they_meet() -> None:
    with pytest.raises(ConfigError) as caught:
        join(0, 3, nodes=4)
    assert "started 3 ranks for nodes: 4" in str(caught.value)
    assert "start 4 ranks or set -s nodes=3" in str(caught.value)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_nobody_meets_gives_up(meeting: str, rank: int) -> None:
    with pytest.raises(MissingEnvironmentError) as caught:
        join(rank, 2, timeout_s=1.0)
    assert f"rank {rank} cannot meet the others at 127.0.0.1:{meeting}" in str(caught.value)
    assert "check MASTER_ADDR, MASTER_PORT" in str(caught.value)


def test_ranks_without_a_meeting_point_are_told_what_to_set() -> None:
    with pytest.raises(MissingEnvironmentError, match="Open MPI does not say where the ranks meet; set MASTER_ADDR"):
        assert Launched("Open MPI", 0, 2, None, True, mpi=True).meeting


def test_the_first_report_stays(meeting: str) -> None:
    """One node diverges, its neighbors lose it, theirs lose them: what helps is the first word, not the last."""

    def work(world: World) -> list[object]:
        told: list[object] = [world.first_fault(0)]
        world.agree("asked before", "any")
        if world.rank == 0:
            world.report(0, DivergedError.at(0, 17, float("nan")))
            world.report(0, LostNeighborError("an echo"))
            world.store.set("reported", "yes")
        world.store.wait(["reported"])
        world.report(0, LostNeighborError(f"an echo at {world.rank}"))
        told += [world.first_fault(0), world.first_fault(1)]
        return told

    first = (5, str(DivergedError.at(0, 17, float("nan"))))
    for told in on_ranks(3, work):
        assert told[1:] == [first, None], "and another run of the job has a word of its own"
    assert on_ranks(1, lambda world: world.first_fault(0)) == [None]


def test_a_report_survives_a_store_that_is_gone(meeting: str) -> None:
    """Rank 0 keeps the store. Where it died first, the others' reports must not hide why they end."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda rank: join(rank, 2, timeout_s=5.0), range(2))
    object.__setattr__(first, "store", None)  # the server ends with its last reference
    second.report(0, LostNeighborError("node 1 lost node 0"))
    assert second.first_fault(0) in (None, (4, "node 1 lost node 0"))
    with pytest.raises(LostNeighborError, match="node 1 waited for node 0 to say 'folder' in vain"):
        second.agree("folder", "")
