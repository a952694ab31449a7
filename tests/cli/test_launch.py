"""`decentral launch`: what it writes where, and that real ranks start from it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Command

HERE = Path(sys.executable).parent
SRUN = """#!/usr/bin/env python3
# Stands in for srun: starts the tasks of one step on this host with the variables that srun would set.
import os, subprocess, sys
tasks = int(os.environ["TASKS"])
step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NODELIST": "localhost"}
step |= {"SLURM_STEP_TASKS_PER_NODE": str(tasks), "SLURM_NODEID": "0"}
ranks = [
    subprocess.Popen(sys.argv[1:], env=os.environ | step | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
    for rank in range(tasks)
]
sys.exit(max(rank.wait() for rank in ranks))
"""
SCONTROL = "#!/bin/sh\necho localhost\n"
NOTES_A_SIGNAL = """
import os, pathlib, signal, sys, time
def note(number, frame):
    pathlib.Path(f"noted-{os.environ['RANK']}").write_text(signal.Signals(number).name)
    sys.exit(0)
signal.signal(signal.SIGUSR1, note)
pathlib.Path(f"ready-{os.environ['RANK']}").touch()
time.sleep(60)
"""


def test_it_writes_beside_and_never_over(decentral: Command, small: Path) -> None:
    result = decentral("launch", "small.yaml", "--with", "mpirun")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "wrote small.mpirun.sh, small.mpirun.hostfile; start it with:",
        "  bash small.mpirun.sh",
    ]
    before = (small.parent / "small.mpirun.sh").read_text()
    (small.parent / "small.mpirun.hostfile").write_text("mine\n")
    again = decentral("launch", "small.yaml", "--with", "mpirun", "-s", "threads=2")
    assert (again.code, again.line) == (2, "small.mpirun.sh exists; write over it with --force, or elsewhere with -o")
    (small.parent / "small.mpirun.sh").unlink()
    assert "small.mpirun.hostfile exists" in decentral("launch", "small.yaml", "--with", "mpirun").line
    assert not (small.parent / "small.mpirun.sh").exists()
    assert (small.parent / "small.mpirun.hostfile").read_text() == "mine\n"
    forced = decentral("launch", "small.yaml", "--with", "mpirun", "-s", "threads=2", "--force")
    assert forced.code == 0
    assert "OMP_NUM_THREADS=2" in (small.parent / "small.mpirun.sh").read_text() != before


def test_a_dry_run_writes_nothing(decentral: Command, small: Path) -> None:
    before = set(small.parent.iterdir())
    printed = decentral("launch", "small.yaml", "--with", "slurm", "--dry-run", "--nodes", "8", "--ranks-per-host", "4")
    assert printed.out.startswith("#!/usr/bin/env bash\n")
    assert "#SBATCH --nodes=2\n" in printed.out
    assert "-m decentral train small.yaml -s nodes=8" in printed.out
    options = ("--with", "kubernetes", "--image", "me/train:1", "--dry-run", "--json")
    document = decentral("launch", "small.yaml", *options).json
    assert document["submit"] == "kubectl apply -f small.kubernetes.yaml"
    assert (document["hosts"], document["written"]) == (4, False)
    assert "kind: TrainJob" in document["files"]["small.kubernetes.yaml"]
    assert set(small.parent.iterdir()) == before


def test_paths_hold_where_the_script_works(decentral: Command, small: Path) -> None:
    (small.parent / "jobs of mine").mkdir()
    result = decentral("launch", "small.yaml", "--with", "slurm-srun", "-o", "jobs of mine/a.sh", "--out", "runs/r")
    assert result.out.splitlines()[-1] == "  cd 'jobs of mine' && sbatch a.sh"
    text = (small.parent / "jobs of mine" / "a.sh").read_text()
    assert f"cd -- '{small.parent}/jobs of mine'\n" in text
    assert "srun decentral train ../small.yaml " in text
    assert "run=../runs/r\n" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--with", "slrum"), "--with slrum: no such launcher; did you mean 'slurm'?"),
        (("--with", "pbs"), "known: kubernetes, kubernetes-mpi, mpirun, skypilot, slurm, "),
        (("--with", "torchrun", "--nodes", "5", "--ranks-per-host", "2"), "5 nodes cannot be spread evenly"),
        (("--with", "torchrun", "-s", "nodez=5"), "unknown key; did you mean 'nodes'?"),
        (("--with", "kubernetes"), "--with kubernetes needs --image"),
        (("--with", "torchrun", "-o", "nowhere/a.sh"), "nowhere is no folder; make it first"),
    ],
)
def test_bad_input(decentral: Command, small: Path, arguments: tuple[str, ...], told: str) -> None:
    result = decentral("launch", "small.yaml", *arguments)
    assert result.code == 2
    assert told in result.line


def run(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "bin"), str(HERE), os.environ["PATH"]])
    where = dict(os.environ) | {"PATH": path} | environment
    return subprocess.run(["bash", script], cwd=folder, env=where, capture_output=True, text=True, timeout=180)


def install(folder: Path, **programs: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(stat.S_IRWXU)


OWN_DECENTRAL = f'#!/bin/sh\nexec {sys.executable} -m decentral "$@"\n'


@pytest.mark.processes
@pytest.mark.timeout(500)
def test_real_ranks_start_from_what_is_written(decentral: Command, small: Path) -> None:
    """torchrun is the installed one; srun is played by a script, which starts as many real ranks as a step would."""
    install(small.parent, srun=SRUN, scontrol=SCONTROL, decentral=OWN_DECENTRAL)
    batch = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "localhost", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    models = {}
    for launcher, environment in {
        "torchrun": {},
        "slurm-srun": batch | {"TASKS": "2"},
        "slurm-torchrun": batch | {"TASKS": "1"},
    }.items():
        options = ("--nodes", "2", "--ranks-per-host", "2", "-s", "model.hidden=[8]", "--out", f"runs/{launcher} 1")
        assert decentral("launch", "small.yaml", "--with", launcher, *options).code == 0
        done = run(small.parent, f"small.{launcher}.sh", **environment)
        assert done.returncode == 0, done.stderr
        folder = small.parent / "runs" / f"{launcher} 1" / "models"
        models[launcher] = [(folder / f"node-{node}.safetensors").read_bytes() for node in range(2)]
    assert models["torchrun"] == models["slurm-srun"] == models["slurm-torchrun"]


@pytest.mark.processes
def test_the_warning_before_the_time_limit_reaches_every_rank(decentral: Command, small: Path) -> None:
    """Slurm signals torchrun, whose ranks are in sessions of their own: unless it is told to, it dies of SIGUSR1."""
    (small.parent / "decentral").mkdir()
    (small.parent / "decentral" / "__init__.py").touch()
    (small.parent / "decentral" / "__main__.py").write_text(NOTES_A_SIGNAL)
    assert decentral("launch", "small.yaml", "--with", "torchrun", "--nodes", "2", "--ranks-per-host", "2").code == 0
    environment = dict(os.environ) | {"PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", "small.torchrun.sh"],
        cwd=small.parent,
        env=environment | {"PYTHONPATH": str(small.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(small.parent.glob("ready-*"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        process.wait(timeout=40)
    finally:
        process.kill()
        process.wait()
    assert {path.name: path.read_text() for path in small.parent.glob("noted-*")} == {
        "noted-0": "SIGUSR1", "noted-1": "SIGUSR1",
    }  # fmt: skip
