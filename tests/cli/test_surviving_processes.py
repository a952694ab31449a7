"""Real processes of which some are killed: the others train on, measure among themselves, and leave a whole record."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_processes import finished, ranks

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

MORTAL = '''\
"""A method whose nodes greet each other in every round, and of which some end themselves as by kill -9."""

import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import torch

from decentral.algorithms.algorithm import Algorithm, State
from decentral.peer import GONE

GREETING = ((torch.zeros((), dtype=torch.int64),),)


@dataclass(slots=True)
class MortalState(State):
    gone: set


@dataclass(frozen=True, kw_only=True)
class Mortal(Algorithm):
    survives: ClassVar[bool] = True
    dies: dict

    def init(self, x, peer):
        return MortalState(x=x, local=self.local.bind(x, peer.layout), gone=set())

    async def step(self, state, peer):
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        if not loss.is_meta and self.dies.get(str(peer.node)) == peer.round:  # a dry run kills nobody
            os.kill(os.getpid(), signal.SIGKILL)
        due = {*peer.row().to} - state.gone
        for neighbor in sorted(due):
            await peer.send(neighbor, (torch.tensor(peer.round),), GREETING)
        while due:
            letter = await peer.receive(GREETING)
            due.discard(letter.sender)
            if letter.kind == GONE:
                state.gone.add(letter.sender)
        return loss
'''
FILE = """\
nodes: 3
rounds: 8
batch_size: 16
evaluate_every: 2
data: digits
model: linear
algorithm: {name: "mortal:Mortal", dies: {"0": 3}}
topology: ring
transport: {survive: true, timeout_s: 60}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mortal.py").write_text(MORTAL)
    (tmp_path / "mortal.yaml").write_text(FILE)
    return tmp_path


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def models(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run" / "models").iterdir())


def test_the_node_that_records_is_killed_and_the_others_go_on(folder: Path) -> None:
    code, out, err = finished(folder, "train", "mortal.yaml", "--nproc", "3", "--out", "run")
    assert code == 0, err
    assert "decentral: node 0 was ended by SIGKILL after " in err
    assert err.rstrip().endswith(" s; the others went on")
    assert out.startswith("recorded in run")
    rows = evaluations(folder)
    assert [row["round"] for row in rows] == [0, 2, 4, 6, 8]
    assert [[accuracy is None for accuracy in row["node_accuracy"]] for row in rows] == (
        [[False] * 3] * 2 + [[True, False, False]] * 3
    )
    assert models(folder) == ["node-1.safetensors", "node-2.safetensors"]
    (method,) = json.loads((folder / "run" / "comparison.json").read_text())["methods"]
    assert method["worst_node_accuracy"] == min(rows[-1]["node_accuracy"][1:])


@pytest.mark.long
def test_a_death_of_the_last_is_the_end(folder: Path) -> None:
    dies = ("-s", 'algorithm.dies={"0": 5, "1": 3, "2": 3}')
    code, _, err = finished(folder, "train", "mortal.yaml", *dies, "--nproc", "3", "--out", "run")
    assert (code, err.count("no node is left")) == (4, 1), err


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_ranks_without_a_launcher_go_on_and_measure_as_long_as_rank_0_lives(folder: Path, victim: int) -> None:
    dies = ("-s", f'algorithm.dies={{"{victim}": 3}}')
    with ranks(folder, 3, "train", "mortal.yaml", *dies, "--out", "run") as processes:
        told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [-9 if rank == victim else 0 for rank in range(3)], told
    assert sum("nothing is measured from here on" in text for text in told) == (victim == 0), told
    assert not any("Traceback" in text for text in told), told
    assert models(folder) == [f"node-{node}.safetensors" for node in range(3) if node != victim]
    assert [row["round"] for row in evaluations(folder)] == ([0, 2] if victim == 0 else [0, 2, 4, 6, 8])
    assert (folder / "run" / "comparison.json").exists() == (victim == 1)
