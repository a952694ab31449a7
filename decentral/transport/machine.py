"""What this machine has for a run: `decentral doctor`'s findings, each with its verdict."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from decentral.errors import MissingEnvironmentError
from decentral.transport.asking import Answer, ask, probe
from decentral.transport.launcher import launched, variables

Verdict = Literal["ok", "missing", "broken"]
MPI_EXTRA = "pip install 'decentral[mpi]'"
AS_TWO_RANKS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "OMP_NUM_THREADS": "1",
}
"""Lets mpirun start two ranks on one core and as root; other MPIs do not read it."""
LAB = """
ip link add b0 type bridge && echo bridge
ip link add v0 type veth peer name v1 && echo veth
tc qdisc add dev lo root tbf rate 1mbit burst 32k latency 50ms && echo tbf && tc qdisc del dev lo root
tc qdisc add dev lo root netem delay 1ms && echo netem
true
"""
"""Tried in a network namespace that ends with its process: nothing of it stays."""


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        text: what was found, and for a lack what to do about it.
        required: whether no run can do without it.
    """

    topic: str
    verdict: Verdict
    text: str
    required: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def fatal(self) -> bool:
        return self.required and self.verdict != "ok"


def examine() -> Iterator[Finding]:
    """All findings in the page's order, each as soon as it is known; some take seconds."""
    version = platform.python_version()
    yield Finding("python", "ok", f"{version} at {sys.executable}", True, {"version": version})
    yield torch_finding(probe("torch"))
    yield finding("gloo", probe("gloo"), lambda _: "two ranks sum a vector over loopback", required=True)
    yield finding(
        "numba", probe("numba"), lambda f: f"{f['version']}, a kernel compiled in {f['compile_s']:.1f} s", required=True
    )
    mpi = probe("mpi", 30)
    yield mpi_finding(mpi)
    yield from mpi_details(mpi)
    yield launcher_finding()
    yield memory_files()
    yield lab_finding()
    yield from hardware()


def finding(topic: str, answer: Answer, said: Callable[[dict[str, Any]], str], required: bool = False) -> Finding:
    """A probe's answer as a finding."""
    if not answer.facts:
        return Finding(topic, "broken", answer.fault or "no answer", required)
    return Finding(topic, "ok", said(answer.facts), required, answer.facts)


def torch_finding(answer: Answer) -> Finding:
    def said(facts: dict[str, Any]) -> str:
        cuda = f"CUDA {facts['cuda']}" if facts["cuda"] else "no CUDA"
        nccl = f"NCCL {facts['nccl']}" if facts["nccl"] else "no NCCL"
        return f"{facts['version']}, {cuda}, {nccl}, GPUs: {', '.join(facts['gpus']) or 'none'}"

    return finding("torch", answer, said, required=True)


def mpi_finding(answer: Answer) -> Finding:
    if "No module named 'mpi4py'" in answer.fault:
        return Finding("mpi4py", "missing", MPI_EXTRA)
    if not answer.facts:
        return Finding("mpi4py", "broken", f"{answer.fault or 'no answer'}; is an MPI library installed? {MPI_EXTRA}")
    facts = answer.facts
    text = f"{facts['mpi4py']} on {facts['vendor']} {facts['version']} (MPI {facts['standard']})"
    return Finding("mpi4py", "ok", text, facts=facts)


def mpi_details(mpi: Answer) -> Iterator[Finding]:
    """What surrounds the library: mpirun, fault tolerance, CUDA. Each may be there without mpi4py."""
    path = shutil.which("mpirun")
    if path is None:
        yield Finding("mpirun", "missing", f"not on the PATH{_where_mpirun_is()}")
    elif not mpi.facts:
        yield Finding("mpirun", "ok", f"{path}, not tried without mpi4py", facts={"path": path})
    else:
        yield mpirun_finding(path)
    if mpi.facts.get("vendor") == "Open MPI" or (path and shutil.which("ompi_info")):
        yield from open_mpi_features(ask(["ompi_info", "--parsable", "--all"], 30))


def _where_mpirun_is() -> str:
    here = Path(sys.executable).parent
    if (here / "mpirun").exists():
        return f", but in {here}: source {here}/activate"
    return f"; {MPI_EXTRA}, or load your cluster's MPI module"


def mpirun_finding(path: str, timeout_s: float = 60.0) -> Finding:
    """Whether mpirun starts two ranks here; not tried in a process that is a rank itself."""
    if list(variables()):
        return Finding("mpirun", "ok", f"{path}, not tried: this process is part of a job", facts={"path": path})
    rank = [sys.executable, "-m", "decentral.transport.probes", "mpi-rank"]
    answer = ask([path, "-n", "2", *rank], timeout_s, AS_TWO_RANKS)
    if answer.facts.get("sum") == 3:
        return Finding("mpirun", "ok", f"{path} starts two ranks", facts={"path": path})
    told = answer.fault or f"two processes found {answer.facts}: mpirun and mpi4py are of two different MPIs"
    return Finding("mpirun", "broken", f"{path}: {told}", facts={"path": path})


def open_mpi_features(answer: Answer) -> Iterator[Finding]:
    """Fault tolerance (ULFM) and CUDA, as `ompi_info --parsable --all` tells them."""
    if answer.fault:
        yield Finding("ompi_info", "missing", f"{answer.fault}; whether ULFM and CUDA are in the MPI is not known")
        return
    ulfm = "options:ft_mpi_support:yes" in answer.out
    cuda = "mpi_built_with_cuda_support:value:true" in answer.out
    yield (
        Finding("ULFM", "ok", "in the MPI; mpirun --with-ft ulfm turns it on")
        if ulfm
        else Finding("ULFM", "missing", "not in the MPI: a lost rank ends the whole mpirun job; Open MPI 5 has it")
    )
    yield (
        Finding("CUDA in MPI", "ok", "vectors go from GPU to GPU")
        if cuda
        else Finding("CUDA in MPI", "missing", "vectors go through host memory; an Open MPI built --with-cuda has it")
    )


def launcher_finding() -> Finding:
    try:
        found = launched()
    except MissingEnvironmentError as error:
        return Finding("launcher", "broken", str(error), required=True, facts={"variables": list(variables())})
    if found is None:
        return Finding("launcher", "ok", "none: decentral train starts the ranks itself")
    where = f"{found.master}:{found.port}" if found.master else "where MPI says"
    text = f"{found.launcher}: rank {found.rank} of {found.size}, to meet at {where}"
    return Finding("launcher", "ok", text, facts={"variables": list(variables())})


def memory_files() -> Finding:
    """What shared-memory links need."""
    room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    facts: dict[str, Any] = {"dev_shm_free_bytes": room}
    try:
        os.close(os.memfd_create("decentral-doctor"))
    except (AttributeError, OSError) as error:
        return Finding("shared memory", "missing", f"no memfd_create ({error}); links go through sockets", facts=facts)
    return Finding("shared memory", "ok", f"memfd_create; {room / 1e9:.1f} GB free in /dev/shm", facts=facts)


def lab_finding() -> Finding:
    """What the network lab needs: root, network namespaces, and shaping by tc."""
    if missing := [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]:
        return Finding("network lab", "missing", f"no {', '.join(missing)}: apt install iproute2 util-linux")
    if os.geteuid():
        return Finding("network lab", "missing", "needs root, for ip netns and tc")
    answer = ask(["unshare", "--net", "sh", "-c", LAB], 20)
    if answer.fault:
        return Finding("network lab", "missing", f"no network namespace can be made here ({answer.fault})")
    has = answer.out.split()
    facts = {name: name in has for name in ("bridge", "veth", "tbf", "netem")}
    lacks = [name for name in ("bridge", "veth", "tbf") if not facts[name]]
    if lacks:
        return Finding("network lab", "missing", f"this kernel has no {', '.join(lacks)}", facts=facts)
    netem = "netem too" if facts["netem"] else "no netem: no latency or loss by tc"
    return Finding("network lab", "ok", f"root, namespaces, bridge, veth, tbf; {netem}", facts=facts)


def hardware() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores()
    limit = f", limited to {quota:g} by the cgroup" if quota and quota < cores else ""
    yield Finding("cores", "ok", f"{cores}{limit}", facts={"cores": cores, "quota": quota})
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cap = cgroup_memory()
    limit = f", limited to {cap / 1e9:.1f} GB by the cgroup" if cap and cap < total else ""
    yield Finding("memory", "ok", f"{total / 1e9:.1f} GB{limit}", facts={"bytes": total, "limit": cap})
    links = [interface(name) for _, name in socket.if_nameindex()]
    yield Finding("interfaces", "ok", "; ".join(map(str, links)), facts={"interfaces": links})


def cgroup_cores() -> float | None:
    quota, _, period = _content("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def cgroup_memory() -> int | None:
    text = _content("/sys/fs/cgroup/memory.max")
    return int(text) if text.isdecimal() else None


def interface(name: str) -> str:
    """`eth0 up, MTU 1500, 10000 Mbit/s`, as far as the kernel says."""
    folder = f"/sys/class/net/{name}"
    speed = _content(f"{folder}/speed")
    parts = [
        f"{name} {_content(f'{folder}/operstate') or 'unknown'}",
        f"MTU {_content(f'{folder}/mtu') or 'unknown'}",
        *([f"{speed} Mbit/s"] if speed.isdecimal() and speed != "0" else ()),
    ]
    return ", ".join(parts)


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
