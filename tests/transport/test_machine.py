"""The doctor survives what it examines: an MPI that hangs or crashes gets one line, and no process stays."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from decentral.transport import machine
from decentral.transport.asking import Answer, ask, probe
from decentral.transport.machine import (
    AS_TWO_RANKS,
    hardware,
    lab_finding,
    launcher_finding,
    memory_files,
    mpi_details,
    mpi_finding,
    mpirun_finding,
    open_mpi_features,
    torch_finding,
)

CUDA_AND_ULFM = "options:ft_mpi_support:yes\nmca:mpi:base:param:mpi_built_with_cuda_support:value:true\n"
NEITHER = "options:ft_mpi_support:no\nmca:mpi:base:param:mpi_built_with_cuda_support:value:false\n"
OPEN_MPI = Answer('{"mpi4py": "4.1", "vendor": "Open MPI", "version": "5.0.11", "standard": "3.1", "library": "x"}\n')


@pytest.fixture
def broken_mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in mpi4py's place; the caller writes what it does when imported."""
    (tmp_path / "mpi4py").mkdir()
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{before}")
    return tmp_path / "mpi4py" / "__init__.py"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ImportError('libmpi.so.40: cannot open shared object file')", "libmpi.so.40: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import time; time.sleep(600)", "no answer within 3 s"),
        ("import sys; sys.exit(0)", "no answer"),
        ("import sys; sys.exit(7)", "exit code 7"),
        ("print('[1, 2]'); import sys; sys.exit(0)", "no answer"),
    ],
)
def test_a_broken_mpi_is_one_line(broken_mpi: Path, body: str, told: str) -> None:
    broken_mpi.write_text(body)
    found = mpi_finding(probe("mpi", timeout_s=3.0))
    assert (found.verdict, found.fatal) == ("broken", False)
    assert told in found.text
    assert "\n" not in found.text


def test_an_mpi_that_is_not_there_is_missing_and_the_remedy_is_named(broken_mpi: Path) -> None:
    broken_mpi.write_text("raise ModuleNotFoundError(\"No module named 'mpi4py'\")")
    found = mpi_finding(probe("mpi"))
    assert (found.verdict, found.text) == ("missing", "pip install 'decentral[mpi]'")


def test_what_was_asked_in_vain_leaves_no_process(tmp_path: Path) -> None:
    """mpirun's own children must not outlive the question."""
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    answer = ask([sys.executable, "-c", parent, child, str(tmp_path / "pid")], timeout_s=3.0)
    assert answer.fault == "no answer within 3 s"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail(f"process {pid} still ran")


def test_a_program_that_is_not_there() -> None:
    answer = ask(["there-is-no-such-program"], 1.0)
    assert answer.fault == "there-is-no-such-program: No such file or directory"
    assert answer.facts == {}


def test_a_torch_that_does_not_import_is_fatal() -> None:
    found = torch_finding(Answer(fault="ImportError: libcudart.so.12"))
    assert (found.verdict, found.fatal) == ("broken", True)
    gpu = torch_finding(Answer('{"version": "2.13.0", "cuda": "12.9", "nccl": "2.28.3", "gpus": ["H100", "H100"]}'))
    assert (gpu.fatal, gpu.text) == (False, "2.13.0, CUDA 12.9, NCCL 2.28.3, GPUs: H100, H100")


@pytest.mark.parametrize(("out", "verdict"), [(CUDA_AND_ULFM, "ok"), (NEITHER, "missing"), ("", "missing")])
def test_what_ompi_info_says(out: str, verdict: str) -> None:
    assert [(f.topic, f.verdict) for f in open_mpi_features(Answer(out))] == [
        ("ULFM", verdict),
        ("CUDA in MPI", verdict),
    ]


def test_without_ompi_info_nothing_is_claimed() -> None:
    (found,) = open_mpi_features(Answer(fault="ompi_info: No such file or directory"))
    assert (found.topic, found.verdict) == ("ompi_info", "missing")


def test_no_mpirun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.sys, "executable", str(tmp_path / "python"))
    assert [(f.topic, f.verdict) for f in mpi_details(Answer(fault="x"))] == [("mpirun", "missing")]
    assert [f.topic for f in mpi_details(OPEN_MPI)] == ["mpirun", "ompi_info"]
    (tmp_path / "mpirun").touch()
    assert next(mpi_details(OPEN_MPI)).text.startswith(f"not on the PATH, but in {tmp_path}")


def test_an_mpirun_of_another_mpi_than_mpi4pys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of the wrong mpirun are two worlds of one rank each, and train two models without a word."""
    for name in AS_TWO_RANKS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mpirun").write_text('#!/bin/sh\necho \'{"rank": 0, "size": 1, "sum": 1}\'\n')
    (tmp_path / "mpirun").chmod(0o700)
    found = mpirun_finding(str(tmp_path / "mpirun"))
    assert found.verdict == "broken"
    assert "two different MPIs" in found.text


def test_a_launchers_half_environment_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launcher_finding().fatal
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    found = launcher_finding()
    assert found.fatal
    assert found.facts == {"variables": ["OMPI_COMM_WORLD_RANK=1"]}
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert launcher_finding().text == "Open MPI: rank 1 of 2, to meet at where MPI says"
    assert "not tried: this process is part of a job" in mpirun_finding("/no/mpirun").text


def test_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_files().verdict == "ok"
    monkeypatch.delattr(os, "memfd_create")
    assert memory_files().verdict == "missing"


def test_the_labs_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "ask", lambda *_: Answer("bridge\nveth\ntbf\n"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert lab_finding().text == "root, namespaces, bridge, veth, tbf; no netem: no latency or loss by tc"
    monkeypatch.setattr(machine, "ask", lambda *_: Answer("bridge\nveth\n"))
    assert (lab_finding().verdict, lab_finding().text) == ("missing", "this kernel has no tbf")
    monkeypatch.setattr(machine, "ask", lambda *_: Answer(fault="unshare failed: Operation not permitted"))
    assert "no network namespace can be made here" in lab_finding().text
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in lab_finding().text
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert "no ip, tc, unshare" in lab_finding().text


def test_the_hardware() -> None:
    found = {finding.topic: finding for finding in hardware()}
    assert found["cores"].facts["cores"] >= 1
    assert found["memory"].facts["bytes"] > 1e8
    assert any(interface.startswith("lo ") for interface in found["interfaces"].facts["interfaces"])


@pytest.mark.parametrize(
    ("content", "cores", "memory"), [("150000 100000", 1.5, None), ("max 100000", None, None), ("4096", None, 4096)]
)
def test_what_a_cgroup_allows(
    monkeypatch: pytest.MonkeyPatch, content: str, cores: float | None, memory: int | None
) -> None:
    monkeypatch.setattr(machine, "_content", lambda path: content)
    assert machine.cgroup_cores() == cores
    assert machine.cgroup_memory() == memory
