"""How ranks find each other: what the launcher must say, whom they refuse, and whose fault is told."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from decentral.config import Transport
from decentral.errors import ConfigError, DivergedError, LostNeighborError, MissingEnvironmentError
from decentral.transport.launcher import Launched, launched
from decentral.transport.world import World
from tests.contract.ranks import on_ranks

pytestmark = pytest.mark.timeout(90)

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in TORCHRUN.items() if name not in names}


def test_a_process_that_no_launcher_started_is_none() -> None:
    assert launched({}) is None
    assert launched({"MASTER_ADDR": "node-a", "MASTER_PORT": "1"}) is None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Launched("environment variables", 1, 4, "node-a", one_machine=False)),
        ({"TORCHELASTIC_RUN_ID": "x"}, Launched("torchrun", 1, 4, "node-a", one_machine=False)),
        ({"LOCAL_WORLD_SIZE": "4"}, Launched("environment variables", 1, 4, "node-a", one_machine=True)),
        ({"LOCAL_WORLD_SIZE": "2"}, Launched("environment variables", 1, 4, "node-a", one_machine=False)),
        ({"MASTER_ADDR": "127.0.0.9"}, Launched("environment variables", 1, 4, "127.0.0.9", one_machine=True)),
        ({"MASTER_ADDR": "localhost"}, Launched("environment variables", 1, 4, "localhost", one_machine=True)),
        ({"MASTER_ADDR": "::1"}, Launched("environment variables", 1, 4, "::1", one_machine=True)),
    ],
)
def test_what_the_launcher_says(more: Mapping[str, str], expected: Launched) -> None:
    assert launched({**TORCHRUN, **more}) == expected


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (without("RANK"), "but not RANK; start all nodes with torchrun or with --nproc"),
        (without("WORLD_SIZE"), "but not WORLD_SIZE;"),
        (without("MASTER_ADDR", "MASTER_PORT"), "RANK, WORLD_SIZE set but not MASTER_ADDR, MASTER_PORT;"),
        ({**TORCHRUN, "RANK": "one"}, "must be integers"),
        ({**TORCHRUN, "WORLD_SIZE": ""}, "must be integers"),
        ({**TORCHRUN, "RANK": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK=-1 is not below"),
        ({**TORCHRUN, "WORLD_SIZE": "0", "RANK": "0"}, "RANK=0 is not below WORLD_SIZE=0"),
    ],
)
def test_half_an_environment_is_refused(environment: Mapping[str, str], told: str) -> None:
    with pytest.raises(MissingEnvironmentError) as caught:
        launched(environment)
    assert told in str(caught.value)


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> str:
    """A free port, in the variables that torch's rendezvous reads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", port)
    return port


def join(rank: int, size: int, digest: int = 7, nodes: int | None = None, timeout_s: float = 30.0) -> World:
    found = launched({"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
    assert found is not None
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


def test_a_port_that_is_no_number_is_refused(meeting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "http")
    with pytest.raises(MissingEnvironmentError, match=r"cannot meet the others at 127\.0\.0\.1:http"):
        join(0, 2, timeout_s=1.0)


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
