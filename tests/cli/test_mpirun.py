"""`mpirun -n N decentral train`: the models of every other launcher, and the end of a job that loses a rank."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.test_processes import alive, finished, start, wait_for
from tests.mpirun import command, environment, mpirun

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


def models(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "models").iterdir())]


@pytest.mark.parametrize(
    "transport", ["auto", pytest.param("mpi", marks=pytest.mark.long), pytest.param("gloo", marks=pytest.mark.long)]
)
def test_mpirun_leaves_the_models_of_the_simulator(small: Path, transport: str) -> None:
    train = ("-m", "decentral", "train", small.name, "-s", "nodes=2", "-s", f"transport.name={transport}")
    ended = mpirun(2, small.parent, *train, "--out", "real")
    assert ended.returncode == 0, ended.stderr
    code, _, err = finished(small.parent, "simulate", small.name, "-s", "nodes=2", "--out", "simulated")
    assert code == 0, err
    assert models(small.parent / "real") == models(small.parent / "simulated")
    assert len(models(small.parent / "real")) == 2


def test_mpi_links_need_mpirun(small: Path) -> None:
    code, _, err = finished(small.parent, "train", small.name, "-s", "nodes=2", "-s", "transport.name=mpi")
    assert code == 3, err
    assert "transport: mpi, but torchrun started this rank; start it with mpirun, or use auto" in err
    assert "Traceback" not in err


def test_variables_without_mpirun_are_told(small: Path) -> None:
    """Each such process would initialize an MPI of its own, believe to be alone, and leave a file in /dev/shm."""
    before = set(os.listdir("/dev/shm"))
    process = start(small.parent, "train", small.name, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="4")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "Open MPI's variables say rank 0 of 4, but mpirun did not start this process" in err
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("sm_segment")}


def ranks_of(folder: Path) -> list[int]:
    """The ranks of a job in this folder, by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(
                pair.split("=", 1) for pair in (process / "environ").read_text().split("\0") if "=" in pair
            )
            if "OMPI_COMM_WORLD_RANK" in variables and os.readlink(process / "cwd") == str(folder):
                found[int(variables["OMPI_COMM_WORLD_RANK"])] = int(process.name)
        except OSError:
            continue
    return [found[rank] for rank in sorted(found)]


@pytest.mark.parametrize("transport", [pytest.param("auto", marks=pytest.mark.long), "mpi"])
def test_who_loses_a_rank_of_mpirun_says_so_and_ends(small: Path, transport: str) -> None:
    """By itself mpirun ends the whole job when one rank dies; with ULFM the others live on and say what they lost."""
    settings = ("nodes=3", "rounds=1000000", "evaluate_every=1000000", "transport.timeout_s=3")
    settings += (f"transport.name={transport}",)
    overrides = [word for setting in settings for word in ("-s", setting)]
    train = ("-m", "decentral", "train", small.name, *overrides, "--out", "run")
    job = subprocess.Popen(
        command(3, *train, options=("--with-ft", "ulfm")),
        cwd=small.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ranks: list[int] = []
    try:
        wait_for(small.parent / "run" / "metrics.jsonl", 1, [])
        time.sleep(1)  # into the rounds, where nobody evaluates
        ranks = ranks_of(small.parent)
        assert len(ranks) == 3
        os.kill(ranks[2], signal.SIGKILL)
        out, err = job.communicate(timeout=60)
        assert job.returncode == 4, (out, err)
        assert "lost node 2 in round " in err
        assert "Traceback" not in err
        end = time.monotonic() + 20  # mpirun has gone, and its daemon ends whoever is left
        while alive(ranks) and time.monotonic() < end:
            time.sleep(0.1)
        assert alive(ranks) == []
    finally:
        job.kill()
        for rank in alive(ranks):
            os.kill(rank, signal.SIGKILL)
        job.communicate()
