"""Ranks that live and die one by one under one launcher: small shell commands stand for them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest
from torch.distributed import TCPStore

from decentral.errors import LostNeighborError
from decentral.transport.apart import HOST, _Job
from decentral.transport.launch import Ending
from decentral.transport.survivors import Dead, say_linked

pytestmark = pytest.mark.timeout(60)

CAUGHT = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT
Launch = Callable[..., tuple[Ending, list[str]]]


@pytest.fixture
def store() -> Iterator[TCPStore]:
    """And the signals as they were: a launching context catches some."""
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def launch(store: TCPStore, tmp_path: Path) -> Launch:
    """Runs a script as three ranks, of which some have said that they are linked; the ending, and what was told."""

    def launched(script: str, linked: int = 3) -> tuple[Ending, list[str]]:
        told: list[str] = []
        for rank in range(linked):
            say_linked(store, rank)
        job = _Job(3, store, told.append)
        with job.started(["sh", "-c", script], tmp_path):
            return job.waited(), told

    return launched


def test_who_dies_is_declared_dead_and_told_of_and_the_others_make_a_good_end(
    launch: Launch, store: TCPStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ending, (line,) = launch(f"[ $RANK = 1 ] && kill -9 $$; sleep 0.3; echo $RANK $WORLD_SIZE >> {out}")
    assert ending == Ending(0)
    assert line.startswith("node 1 was ended by SIGKILL after 0.")
    assert line.endswith(" s; the others went on")
    assert Dead(store).among([0, 1, 2]) == {1}
    assert sorted(out.read_text().split("\n")) == ["", "0 3", "2 3"]


def test_a_death_before_all_are_linked_ends_the_job(launch: Launch) -> None:
    ending, told = launch("[ $RANK = 1 ] && kill -9 $$; exec sleep 50", linked=2)
    assert (ending.code, ending.said, told) == (LostNeighborError.exit_code, False, [])
    assert "node 1 was ended by SIGKILL" in ending.reason
    assert "before all nodes were linked, so the others were stopped" in ending.reason


def test_who_fails_otherwise_ends_the_job_with_its_word(launch: Launch) -> None:
    word = '{"message": "node 2 diverged", "timestamp": 1}'
    ending, told = launch(
        f"[ $RANK = 0 ] && kill -9 $$; [ $RANK = 2 ] && echo '{word}' > $TORCHELASTIC_ERROR_FILE && sleep 0.2 && exit 5"
        "; exec sleep 50"
    )
    assert (ending, told) == (Ending(5, "node 2 diverged"), [])


def test_where_all_die_the_first_is_named(launch: Launch) -> None:
    ending, told = launch("[ $RANK = 2 ] || sleep 0.3; kill -11 $$")
    assert (ending.code, told) == (LostNeighborError.exit_code, [])
    assert ending.reason.startswith("node 2 was ended by SIGSEGV after ")
    assert ending.reason.endswith("no node is left")


def test_nobody_is_left_behind(store: TCPStore, tmp_path: Path) -> None:
    out = tmp_path / "pids"
    job = _Job(2, store, print)

    def interrupted() -> None:
        with job.started(["sh", "-c", f"echo $$ >> {out}; exec sleep 50"], tmp_path):
            while not out.exists() or len(out.read_text().split()) < 2:
                sleep(0.01)
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        interrupted()
    for pid in out.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
