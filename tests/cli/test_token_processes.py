"""A walking model on real processes: the models and bytes of the simulator, and nobody hangs when a node dies."""

import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_processes import finished, ranks, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

WALKING = """\
nodes: 4
rounds: 6
batch_size: 16
evaluate_every: 3
data: digits
partition: {name: shards}
model: {name: mlp, hidden: [16]}
optimizer: {lr: 0.2}
algorithm: {name: sa-srrw, visits: 40, decay: 0.1}
topology: ring
checkpoint: {every: 3}
transport: {name: gloo, timeout_s: 30}
"""


@pytest.fixture
def walking(tmp_path: Path) -> Path:
    file = tmp_path / "walking.yaml"
    file.write_text(WALKING)
    return file


def left_by(run: Path) -> tuple[list[bytes], list[int], float]:
    """Each node's model file, the bytes that each sent, and the accuracy of the walking model."""
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    models = [(run / f"models/node-{node}.safetensors").read_bytes() for node in range(4)]
    return models, last["bytes_sent"], last["accuracy"]


def test_a_token_on_processes_gives_the_models_of_the_simulator_and_resumes(walking: Path, decentral: Command) -> None:
    """The whole run on processes, simulated, and half of it on processes and the other half simulated: the same."""
    folder = walking.parent
    code, _, err = finished(folder, "train", walking.name, "--nproc", "4", "--out", "real")
    assert code == 0, err
    found = [left_by(folder / "real")]
    for words in (["--out", "simulated"], ["--resume", "real", "--from", "round-3"]):
        simulated = decentral("simulate", walking.name, *words)
        assert simulated.code == 0, simulated.err
        found.append(left_by(folder / words[1]))
    assert found[0] == found[1] == found[2]
    assert found[0][2] > 0.6


@pytest.mark.long
def test_who_loses_a_neighbor_says_so_and_ends(walking: Path) -> None:
    settings = (
        "nodes=3",
        "rounds=1000000",
        "evaluate_every=1000000",
        "transport.timeout_s=20",
        "checkpoint.every=null",
    )
    overrides = [word for setting in settings for word in ("-s", setting)]
    with ranks(walking.parent, 3, "train", walking.name, *overrides, "--out", "run") as (first, second, victim):
        wait_for(walking.parent / "run" / "metrics.jsonl", 1, [first, second, victim])
        time.sleep(1)  # into the rounds, where nobody evaluates
        victim.kill()
        told = [process.communicate(timeout=60)[1] for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [4, 4], told
    assert any("lost node 2 in round" in text for text in told), told
    assert not any("Traceback" in text for text in told), told
