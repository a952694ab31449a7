"""Real processes that a scheduler takes away: what SIGTERM and SIGUSR1 leave, and that it goes on bit by bit."""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from decentral.measure.checkpoints import Checkpoints
from tests.cli.test_processes import alive, children, finished, ranks, start, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

DROPOUT = (
    "from torch import nn\n\ndef build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.3), nn.BatchNorm1d(16),"
    " nn.Linear(16, 10))\n"
)
LONG = ("-s", "model=dropping:build", "-s", "nodes=2", "-s", "evaluate_every=100")


@pytest.fixture
def dropping(small: Path) -> Path:
    (small.parent / "dropping.py").write_text(DROPOUT)
    return small


def rows(run: Path) -> list[dict[str, object]]:
    """Of metrics.jsonl, but for the seconds."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


@pytest.mark.long
def test_a_job_that_is_preempted_twice_ends_as_if_it_never_was(dropping: Path) -> None:
    folder, run = dropping.parent, dropping.parent / "run"
    origin = ["--out", "run"]
    for rows_before in (2, 4):
        process = start(folder, "train", dropping.name, *LONG, "-s", "rounds=1000000", "--nproc", "2", *origin)
        nodes: list[int] = []
        try:
            wait_for(run / "metrics.jsonl", rows_before, [process])
            nodes = children(process.pid)
            process.send_signal(signal.SIGUSR1)
            known = len(Checkpoints(run).rounds())
            end = time.monotonic() + 60
            while len(Checkpoints(run).rounds()) == known and time.monotonic() < end:
                time.sleep(0.05)
            assert len(Checkpoints(run).rounds()) > known
            assert process.poll() is None  # it goes on
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=100)
            assert process.returncode == 143, err
            reached = Checkpoints(run).rounds()[-1]
            assert f"the newest checkpoint is of round {reached}: go on with `decentral train" in err
            assert err.count("SIGTERM") == 1, err
            assert "Traceback" not in err
            assert alive(nodes) == []
        finally:
            for pid in [process.pid, *nodes]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()
        origin = ["--resume", "run"]
    rounds = ("-s", f"rounds={reached + 50}")
    code, _, err = finished(folder, "train", dropping.name, *LONG, *rounds, "--resume", "run")
    assert code == 0, err
    code, _, err = finished(folder, "train", dropping.name, *LONG, *rounds, "--out", "whole")
    assert code == 0, err
    for node in (0, 1):
        name = f"models/node-{node}.safetensors"
        assert (run / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert rows(run) == rows(folder / "whole")


def test_one_rank_that_a_scheduler_ends_takes_all_to_the_same_checkpoint(dropping: Path) -> None:
    """Without a launcher: only one of three is signaled, and it is not node 0, which keeps the store."""
    folder = dropping.parent
    overrides = (*LONG, "-s", "nodes=3", "-s", "rounds=1000000")
    with ranks(folder, 3, "train", dropping.name, *overrides, "--out", "run") as processes:
        wait_for(folder / "run" / "metrics.jsonl", 2, processes)
        processes[2].send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [143, 143, 143], told
    (reached,) = Checkpoints(folder / "run").rounds()
    assert f"the checkpoint of round {reached} is whole" in told[0]
    assert "SIGTERM" not in told[1] + told[2]
    code, _, err = finished(
        folder, "simulate", dropping.name, *overrides[:-1], f"rounds={reached + 9}", "--resume", "run"
    )
    assert code == 0, err
    code, _, err = finished(
        folder, "simulate", dropping.name, *overrides[:-1], f"rounds={reached + 9}", "--out", "whole"
    )
    assert code == 0, err
    for node in range(3):
        name = f"models/node-{node}.safetensors"
        assert (folder / "run" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.long
def test_a_damaged_file_ends_all_ranks_with_2(dropping: Path) -> None:
    folder = dropping.parent
    overrides = (*LONG, "-s", "rounds=4", "-s", "checkpoint={every: 2}")
    code, _, err = finished(folder, "simulate", dropping.name, *overrides, "--out", "run")
    assert code == 0, err
    (folder / "run" / "checkpoints" / "round-00000004" / "node-1.safetensors").write_bytes(b"torn")
    with ranks(folder, 2, "train", dropping.name, *overrides, "--resume", "run") as processes:
        told = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [2, 2], told
    assert all("round-00000004/node-1.safetensors: torn or changed" in text for text in told)
