"""Real processes of an asynchronous method that a scheduler takes away: all come to rest, go on, and lose no mass."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from decentral.measure.checkpoints import Checkpoints, name_of
from tests.cli.test_processes import ranks, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

NODES = 2
PUSHING = ("-s", "algorithm=async-gradient-push", "-s", f"nodes={NODES}", "-s", "optimizer.momentum=0")
SLOW = ("-s", "stragglers=[{node: 0, slowdown: 3}]", "-s", "checkpoint.every=30")


def steps(folder: Path) -> list[int]:
    """That each node had made, in the folder of a checkpoint."""
    numbers: list[Any] = [json.loads((folder / f"node-{node}.json").read_text()) for node in range(NODES)]
    return [one["course"]["object"][2]["steps"] for one in numbers]


def mass(folder: Path) -> float:
    """The sum of all weights, in the folder of a checkpoint."""
    weights = [load_file(folder / f"node-{node}.safetensors")["state.weight"] for node in range(NODES)]
    return sum(float(weight) for weight in weights)


def test_one_rank_that_a_scheduler_ends_takes_all_to_the_next_cut_and_they_go_on(small: Path) -> None:
    """Only the faster one is signaled, which is not node 0, and its step is not node 0's."""
    folder, run = small.parent, small.parent / "run"
    long = (*PUSHING, *SLOW, "-s", "rounds=1000000")
    with ranks(folder, NODES, "train", small.name, *long, "--out", "run") as processes:
        wait_for(run / "metrics.jsonl", 9, processes)
        processes[1].send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [143] * NODES, told
    reached = Checkpoints(run).rounds()[-1]
    cut = run / "checkpoints" / name_of(reached)
    assert f"the checkpoint of round {reached} is whole: go on with `decentral train {small.name}" in told[0]
    assert "SIGTERM" not in told[1]
    assert 30 < reached <= max(steps(cut))
    assert mass(cut) == pytest.approx(NODES, abs=1e-9)
    rows = (run / "metrics.jsonl").read_text()
    more = ("-s", f"rounds={max(steps(cut)) + 40}", "--resume", "run")
    with ranks(folder, NODES, "train", small.name, *PUSHING, *SLOW, *more) as processes:
        told = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * NODES, told
    final = run / "checkpoints" / name_of(max(steps(cut)) + 40)
    assert steps(final) == [max(steps(cut)) + 40] * NODES
    assert mass(final) == pytest.approx(NODES, abs=1e-9)
    assert (run / "metrics.jsonl").read_text().startswith(rows)
    seconds = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)
