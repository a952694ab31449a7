"""Real processes: started by torchrun's launcher or by hand, interrupted, killed, and compared with the simulator."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

Process = subprocess.Popen[str]

RESULT_KEYS = {
    "name",
    "final_accuracy",
    "worst_node_accuracy",
    "seconds_to_target",
    "bytes_per_node",
    "speedup_vs_allreduce",
    "speedup_vs_ddp",
    "per_seed",
}


def start(folder: Path, *arguments: str, **environment: str) -> Process:
    """`python -m decentral ARGUMENTS` in a folder, in a process group of its own."""
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "decentral", *arguments],
        cwd=folder,
        env=clean | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=150)
    return process.returncode, out, err


@contextmanager
def ranks(folder: Path, count: int, *arguments: str) -> Iterator[list[Process]]:
    """Ranks without a launcher, as a scheduler would start them: nobody ends the others when one dies."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start(folder, *arguments, RANK=str(rank), **where) for rank in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(path: Path, lines: int, processes: Sequence[Process]) -> None:
    """Until a file has so many lines; fails where a process ends before."""
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(pids: Sequence[int]) -> list[int]:
    """Those of the processes that still run."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [
        pid for pid, stat in states.items() if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


@contextmanager
def job(folder: Path, *arguments: str) -> Iterator[tuple[Process, list[int]]]:
    """A training job that would go on for ever, once it trains: our launcher, and its two ranks' process numbers."""
    process = start(folder, *arguments, "-s", "rounds=1000000", "-s", "nodes=2", "--out", "run")
    nodes: list[int] = []
    try:
        wait_for(folder / "run" / "metrics.jsonl", 2, [process])
        nodes = children(process.pid)
        assert len(nodes) == 2
        yield process, nodes
    finally:
        for pid in [process.pid, *nodes]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_train_gives_the_models_of_simulate_bit_by_bit(small: Path) -> None:
    code, _, err = finished(small.parent, "train", small.name, "--nproc", "4", "--out", "real")
    assert code == 0, err
    code, _, err = finished(small.parent, "simulate", small.name, "--out", "simulated")
    assert code == 0, err
    for node in range(4):
        name = f"models/node-{node}.safetensors"
        assert (small.parent / "real" / name).read_bytes() == (small.parent / "simulated" / name).read_bytes()
    sent = [
        json.loads((small.parent / run / "metrics.jsonl").read_text().splitlines()[-1])["bytes_sent"]
        for run in ("real", "simulated")
    ]
    assert sent[0] == sent[1]


ONE_PEER = """\
import networkx as nx

WEIGHTS = "given"


def build(nodes):
    turns = []
    for k in range((nodes - 1).bit_length()):
        turn = nx.DiGraph()
        turn.add_weighted_edges_from((i, (i + 2**k) % nodes, 0.5) for i in range(nodes))
        turns.append(turn)
    return turns
"""


@pytest.mark.long
def test_a_directed_schedule_of_a_users_file_gives_the_models_of_simulate(small: Path) -> None:
    """One receives from another node than one sends to, and from another in the next round."""
    (small.parent / "one_peer.py").write_text(ONE_PEER)
    settings = ("-s", "topology=./one_peer.py", "-s", "transport.name=gloo")
    code, _, err = finished(small.parent, "train", small.name, "--nproc", "4", *settings, "--out", "real")
    assert code == 0, err
    code, _, err = finished(small.parent, "simulate", small.name, *settings, "--out", "simulated")
    assert code == 0, err
    digests = {
        run: [
            sha256((small.parent / run / f"models/node-{node}.safetensors").read_bytes()).hexdigest()
            for node in range(4)
        ]
        for run in ("real", "simulated")
    }
    assert digests["real"] == digests["simulated"]
    assert len(set(digests["real"])) == 2  # the last turn takes the mean of nodes that are 2 apart


def test_a_method_that_diverges_is_told_and_the_others_go_on(small: Path) -> None:
    """Two labels that look alike as folders must not share one, either."""
    wild = "compare=[{label: D SGD, optimizer: {lr: 1.0e+30}}, {label: D-SGD, optimizer: {lr: 0.1}}]"
    overrides = ("-s", "nodes=3", "-s", wild, "-s", "baselines=[]", "-s", "target=null")
    code, out, err = finished(small.parent, "speedup", small.name, *overrides, "--out", "run", "--json")
    assert code == 0, err
    failures = {method["name"]: method["per_seed"][0]["failure"] for method in json.loads(out)["methods"]}
    assert failures["dsgd ring"] is failures["D-SGD"] is None
    assert "diverged in round" in failures["D SGD"]
    folders = {method["per_seed"][0]["folder"] for method in json.loads(out)["methods"]}
    assert len(folders) == 3


def test_speedup_compares_a_users_graph_with_both_baselines(small: Path) -> None:
    (small.parent / "pair.edgelist").write_text("0 1\n")
    overrides = ("-s", "nodes=2", "-s", "topology=pair.edgelist", "-s", "partition=iid", "-s", "seeds=[0, 1]")
    overrides += ("--predict", "-s", "clock={gradient_s: 0.001}", "--straggler", "node=1,slowdown=2")
    code, out, err = finished(small.parent, "speedup", small.name, *overrides, "--out", "run", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [method["name"] for method in document["methods"]] == ["dsgd pair", "allreduce", "ddp"]
    assert [method["algorithm"] for method in document["predicted"]] == ["dsgd", "allreduce", "allreduce"]
    assert all(method["seconds"] > 0 for method in document["predicted"])
    for method in document["methods"]:
        assert set(method) >= RESULT_KEYS
        assert method["final_accuracy"] > 0.5
        assert [run["seed"] for run in method["per_seed"]] == [0, 1]
    assert Path(small.parent / document["report"]).read_text().startswith("<!DOCTYPE html>")
    ours, theirs = (
        load_file(small.parent / "run" / method / "seed-1" / "models" / "node-0.safetensors")
        for method in ("01-allreduce", "02-ddp")
    )
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("signaled", "how", "transport"),
    [
        (signal.SIGKILL, "lost", "shared-memory"),
        pytest.param(signal.SIGKILL, "lost", "gloo", marks=pytest.mark.long),
        pytest.param(signal.SIGSTOP, "waited", "shared-memory", marks=pytest.mark.long),
        (signal.SIGSTOP, "waited", "gloo"),
    ],
)
def test_who_loses_a_neighbor_says_so_and_ends(small: Path, signaled: signal.Signals, how: str, transport: str) -> None:
    """A killed neighbor closes its connection, a stopped one says nothing: in both cases nobody may hang."""
    before = set(os.listdir("/dev/shm"))
    settings = ("nodes=3", "rounds=1000000", "evaluate_every=1000000", "transport.timeout_s=3")
    settings += (f"transport.name={transport}",)
    overrides = [word for setting in settings for word in ("-s", setting)]
    with ranks(small.parent, 3, "train", small.name, *overrides, "--out", "run") as (first, second, victim):
        wait_for(small.parent / "run" / "metrics.jsonl", 1, [first, second, victim])
        time.sleep(1)  # into the rounds, where nobody evaluates
        victim.send_signal(signaled)
        told = [process.communicate(timeout=60)[1] for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [4, 4], told
    assert any(f"{how} " in text and "node 2 in round" in text for text in told), told
    assert not any("Traceback" in text for text in told), told
    assert set(os.listdir("/dev/shm")) <= before


def test_a_job_whose_node_is_killed_ends_with_4_and_leaves_nobody(small: Path) -> None:
    with job(small.parent, "train", small.name) as (launcher, nodes):
        os.kill(nodes[1], signal.SIGKILL)
        _, err = launcher.communicate(timeout=60)
        assert launcher.returncode == 4, err
        assert "node 1" in err
        assert "Traceback" not in err
        assert alive(nodes) == []


def test_an_interrupted_job_ends_with_130_and_leaves_nobody(small: Path) -> None:
    with job(small.parent, "train", small.name) as (launcher, nodes):
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=60)
        assert launcher.returncode == 130, err
        assert "Traceback" not in err
        assert alive(nodes) == []


def test_ranks_end_with_their_launcher_however_it_ends(small: Path) -> None:
    with job(small.parent, "train", small.name) as (launcher, nodes):
        launcher.kill()
        launcher.wait()
        end = time.monotonic() + 30
        while alive(nodes) and time.monotonic() < end:
            time.sleep(0.1)
        assert alive(nodes) == []


def test_a_job_that_diverges_ends_with_5_and_says_where(small: Path) -> None:
    code, out, err = finished(small.parent, "train", small.name, "-s", "optimizer.lr=1e30", "-s", "nodes=2", "--json")
    assert code == 5, err
    assert json.loads(out)["exit_code"] == 5
    assert "diverged in round" in json.loads(out)["error"]


@pytest.mark.long
def test_after_a_thousand_rounds_both_ends_of_each_edge_have_the_same_copy(small: Path) -> None:
    """CHOCO over sockets, values in 16 bits: each node's copy of a neighbor is, bit for bit, the neighbor's own."""
    choco = "{name: choco, compression: {name: top-k, k: 20, values: bf16}, consensus_step: 0.1}"
    settings = [
        f"algorithm={choco}",
        "topology={name: ring, schedule: matchings}",
        "model=linear",
        "rounds=1000",
        "evaluate_every=1000",
        "checkpoint.every=1000",
        "transport.name=gloo",
    ]
    sets = [part for setting in settings for part in ("-s", setting)]
    code, _, err = finished(small.parent, "train", small.name, "--nproc", "4", "--out", "run", *sets)
    assert code == 0, err
    held = [load_file(small.parent / f"run/checkpoints/round-00001000/node-{node}.safetensors") for node in range(4)]
    edges = [(node, j) for node in range(4) for j in ((node + 1) % 4, (node - 1) % 4)]
    for node, j in edges:
        own, copied = held[node][f"state.copies.own.{j}"], held[j][f"state.copies.theirs.{node}"]
        assert own.numpy().tobytes() == copied.numpy().tobytes()
        assert (own - held[node]["state.x"]).norm() < 0.5 * own.norm()
