"""What the launcher says of this process: its rank, how many there are, and where they meet.

Several launchers may speak at once: torchrun inside sbatch leaves Slurm's variables standing, and so does mpirun. The
one that stands nearest to the process counts: torchrun, Open MPI, PMI (Hydra, so MPICH and Intel MPI), the four
variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set by hand, and Slurm's srun.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from decentral.errors import MissingEnvironmentError
from decentral.transport import slurm

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Launched:
    """What the launcher says of this process.

    Attributes:
        launcher: its name, for messages.
        rank: of this process, from 0.
        size: number of ranks.
        master: the host where the ranks meet; None where the launcher does not say and MPI itself must be asked.
        one_machine: whether all ranks are known to be on one host.
        port: where they meet on `master`; None together with it.
        local_rank: among the ranks of this host, from 0; None where unknown.
        local_size: ranks on this host; None where unknown.
        mpi: whether MPI_Init makes this process the same rank, given an MPI that the launcher knows.
    """

    launcher: str
    rank: int
    size: int
    master: str | None
    one_machine: bool
    port: int | None = None
    local_rank: int | None = None
    local_size: int | None = None
    mpi: bool = False

    @property
    def meeting(self) -> str:
        """`tcp://host:port`, as torch's rendezvous takes it.

        Raises:
            MissingEnvironmentError: the launcher does not say where the ranks meet.
        """
        if self.master is None:
            raise MissingEnvironmentError(
                f"{self.launcher} does not say where the ranks meet; set MASTER_ADDR and MASTER_PORT on every rank "
                "(mpirun -x MASTER_ADDR=FIRST_HOST -x MASTER_PORT=29500 ...)"
            )
        host = f"[{self.master}]" if isinstance(_address(self.master), IPv6Address) else self.master
        return f"tcp://{host}:{self.port}"


class _Names(NamedTuple):
    """The variables of a launcher that says rank and size in so many words."""

    launcher: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    mpi: bool = False


TORCHRUN = _Names("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
BY_HAND = TORCHRUN._replace(launcher="environment variables")
OPEN_MPI = _Names(
    "Open MPI",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    mpi=True,
)
PMI = _Names("PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", mpi=True)
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def launched(environment: Environment = os.environ) -> Launched | None:
    """What the nearest launcher says; None in a process that no launcher started as one of several ranks.

    The shell of a batch job, an interactive shell and a step of one task have Slurm's variables and are no ranks.

    Raises:
        MissingEnvironmentError: a launcher's variables are set in part, or make no sense.
    """
    names = _nearest(environment)
    if names is not None:
        return _said(names, environment)
    if slurm.is_step(environment):
        return _by_srun(environment)
    if "RANK" in environment or "WORLD_SIZE" in environment:
        return _said(BY_HAND, environment)
    return None


def is_first(environment: Environment = os.environ) -> bool:
    """Whether this process speaks for its job: rank 0, or no rank at all. Never fails: what it cannot read is first."""
    try:
        found = launched(environment)
    except MissingEnvironmentError:
        return environment.get("RANK", "0") == "0"
    return found is None or found.rank == 0


def _nearest(environment: Environment) -> _Names | None:
    """The launcher, Slurm aside, that stands nearest to this process."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return TORCHRUN
    if OPEN_MPI.rank in environment or OPEN_MPI.size in environment:
        return OPEN_MPI
    if (PMI.rank in environment or PMI.size in environment) and not _pmi_is_sruns(environment):
        return PMI
    return BY_HAND if all(name in environment for name in (BY_HAND.rank, BY_HAND.size, *ADDRESS)) else None


def _pmi_is_sruns(environment: Environment) -> bool:
    """`srun --mpi=pmi2` sets PMI's variables too, and knows the hosts besides; Hydra under srun starts one proxy each,
    whose Slurm variables are not those of its ranks.
    """
    return (
        slurm.is_step(environment)
        and PMI.local_size not in environment
        and environment.get(PMI.rank) == environment.get("SLURM_PROCID")
    )


def _said(names: _Names, environment: Environment) -> Launched:
    required = [names.rank, names.size, *(() if names.mpi else ADDRESS)]
    _check_whole(required, environment, names.launcher)
    rank, size = _rank_and_size(names.rank, names.size, environment)
    master, port = _meeting(names, environment)
    local_size = _number(names.local_size, environment)
    return Launched(
        names.launcher,
        rank,
        size,
        master,
        one_machine=local_size == size or (master is not None and _is_loopback(master)),
        port=port,
        local_rank=_number(names.local_rank, environment),
        local_size=local_size,
        mpi=names.mpi,
    )


def _check_whole(required: list[str], environment: Environment, launcher: str) -> None:
    missing = [name for name in required if name not in environment]
    if missing:
        found = [name for name in required if name in environment] or [f"the variables of {launcher}"]
        remedy = "start all nodes with torchrun, mpirun or srun, or with --nproc"
        raise MissingEnvironmentError(f"{', '.join(found)} set but not {', '.join(missing)}; {remedy}")


def _rank_and_size(rank_name: str, size_name: str, environment: Environment) -> tuple[int, int]:
    try:
        rank, size = int(environment[rank_name]), int(environment[size_name])
    except ValueError as error:
        raise MissingEnvironmentError(f"{rank_name} and {size_name} must be integers: {error}") from error
    if not 0 <= rank < size:
        raise MissingEnvironmentError(f"{rank_name}={rank} is not below {size_name}={size}, or not from 0")
    return rank, size


def _number(name: str, environment: Environment) -> int | None:
    try:
        return int(environment[name]) if name in environment else None
    except ValueError as error:
        raise MissingEnvironmentError(f"{name}={environment[name]!r} must be an integer") from error


def _meeting(names: _Names, environment: Environment) -> tuple[str | None, int | None]:
    """Where the variables say that the ranks meet; under MPI both may be absent, and one alone is a mistake."""
    found = [name for name in ADDRESS if name in environment]
    if not found:
        return None, None
    _check_whole(list(ADDRESS), environment, names.launcher)
    if not environment["MASTER_ADDR"]:
        raise MissingEnvironmentError("MASTER_ADDR is empty; it must be the host of rank 0")
    return environment["MASTER_ADDR"], _port(environment["MASTER_PORT"])


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 16):
        raise MissingEnvironmentError(f"MASTER_PORT={text!r} is no port; it must be an integer from 1 to 65535")
    return int(text)


def _by_srun(environment: Environment) -> Launched | None:
    _check_whole(["SLURM_PROCID", slurm.size_variable(environment)], environment, "srun")
    rank, size = _rank_and_size("SLURM_PROCID", slurm.size_variable(environment), environment)
    if size == 1:
        return None
    hosts = slurm.hosts(environment)
    master = environment.get("MASTER_ADDR") or next(iter(hosts), None)
    if master is None:
        raise MissingEnvironmentError("srun set no SLURM_STEP_NODELIST and MASTER_ADDR is not set; set MASTER_ADDR")
    port = environment.get("MASTER_PORT")
    return Launched(
        "srun",
        rank,
        size,
        master,
        one_machine=len(hosts) == 1 or _is_loopback(master),
        port=slurm.port(environment) if port is None else _port(port),
        local_rank=_number("SLURM_LOCALID", environment),
        local_size=slurm.local_size(environment, hosts),
        mpi="PMI_RANK" in environment or "PMIX_RANK" in environment,
    )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def variables(environment: Environment = os.environ) -> Iterator[str]:
    """`NAME=value` of each variable above that is set, for `decentral doctor`."""
    for name in sorted({*TORCHRUN[1:5], *OPEN_MPI[1:5], *PMI[1:5], *ADDRESS, *slurm.VARIABLES} & environment.keys()):
        yield f"{name}={environment[name]}"
