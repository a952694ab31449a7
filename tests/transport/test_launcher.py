"""What a launcher says to its ranks, and which one counts where several speak at once."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from decentral.errors import MissingEnvironmentError
from decentral.transport import slurm
from decentral.transport.launcher import Launched, is_first, launched, variables

BY_HAND = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
TORCHRUN = BY_HAND | {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2", "PMI_FD": "9"}
BATCH = {
    "SLURM_JOB_ID": "81234",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_JOB_NODELIST": "gpu[01-02]",
}
SRUN = BATCH | {
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
}
PORT = 20_000 + (81_234 + 997 * 2) % 10_000

BY_SRUN = Launched("srun", 3, 4, "gpu01", False, PORT, local_rank=1, local_size=2)
BY_OPEN_MPI = Launched("Open MPI", 3, 4, None, False, local_rank=1, local_size=2, mpi=True)
BY_HYDRA = Launched("PMI", 2, 4, None, False, local_rank=0, local_size=2, mpi=True)
BY_TORCHRUN = Launched("torchrun", 1, 4, "node-a", False, 29500, local_rank=1, local_size=2)
SET_BY_HAND = Launched("environment variables", 1, 4, "node-a", False, 29500)
STEP_OF_ONE = SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
ONE_HOST = {"SLURM_STEP_NODELIST": "gpu07", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "4"}


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


CASES: dict[str, tuple[Mapping[str, str], Launched | None]] = {
    "nobody": ({}, None),
    "an address alone": ({"MASTER_ADDR": "node-a", "MASTER_PORT": "1"}, None),
    "by hand": (BY_HAND, SET_BY_HAND),
    "by hand, all here": (BY_HAND | {"LOCAL_WORLD_SIZE": "4"}, replace(SET_BY_HAND, one_machine=True, local_size=4)),
    "by hand, some here": (BY_HAND | {"LOCAL_WORLD_SIZE": "2"}, replace(SET_BY_HAND, local_size=2)),
    "loopback": (
        BY_HAND | {"MASTER_ADDR": "127.0.0.9"},
        replace(SET_BY_HAND, master="127.0.0.9", one_machine=True),
    ),
    "localhost": (
        BY_HAND | {"MASTER_ADDR": "localhost"},
        replace(SET_BY_HAND, master="localhost", one_machine=True),
    ),
    "IPv6 loopback": (BY_HAND | {"MASTER_ADDR": "::1"}, replace(SET_BY_HAND, master="::1", one_machine=True)),
    "torchrun": (TORCHRUN, BY_TORCHRUN),
    "torchrun inside sbatch": (BATCH | TORCHRUN, BY_TORCHRUN),
    "torchrun started by srun": (SRUN | TORCHRUN, BY_TORCHRUN),
    "torchrun started by mpirun": (OPEN_MPI | TORCHRUN, BY_TORCHRUN),
    "Open MPI": (OPEN_MPI, BY_OPEN_MPI),
    "Open MPI on one machine": (
        OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
        replace(BY_OPEN_MPI, local_size=4, one_machine=True),
    ),
    "Open MPI with an address": (
        OPEN_MPI | {"MASTER_ADDR": "node-a", "MASTER_PORT": "29501"},
        replace(BY_OPEN_MPI, master="node-a", port=29501),
    ),
    "mpirun in a shell with another RANK": (
        OPEN_MPI | BY_HAND | {"RANK": "0", "WORLD_SIZE": "1"},
        replace(BY_OPEN_MPI, master="node-a", port=29500),
    ),
    "mpirun inside sbatch": (BATCH | OPEN_MPI, BY_OPEN_MPI),
    "mpirun's daemons started by srun": (SRUN | OPEN_MPI, BY_OPEN_MPI),
    "Open MPI, one rank": (
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        Launched("Open MPI", 0, 1, None, False, mpi=True),
    ),
    "Hydra": (HYDRA, BY_HYDRA),
    "Hydra's proxies started by srun": (SRUN | HYDRA, BY_HYDRA),
    "PMI without the local ones": ({"PMI_RANK": "0", "PMI_SIZE": "2"}, Launched("PMI", 0, 2, None, False, mpi=True)),
    "srun": (SRUN, BY_SRUN),
    "srun of an old Slurm": (without(SRUN, "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"), BY_SRUN),
    "srun, hosts of the job": (without(SRUN, "SLURM_STEP_NODELIST"), BY_SRUN),
    "srun, a step smaller than its job": (SRUN | {"SLURM_NTASKS": "9"}, BY_SRUN),
    "srun, ranks per host as asked": (
        without(SRUN, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE") | {"SLURM_NTASKS_PER_NODE": "2"},
        BY_SRUN,
    ),
    "srun, one host": (SRUN | ONE_HOST, replace(BY_SRUN, master="gpu07", one_machine=True, local_size=4)),
    "srun, hosts unequally full": (
        SRUN | {"SLURM_STEP_TASKS_PER_NODE": "3,1"},
        replace(BY_SRUN, local_size=1),
    ),
    "srun with an address": (
        SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501", "WORLD_SIZE": "4"},
        replace(BY_SRUN, master="10.0.0.1", port=29501),
    ),
    "srun with a host alone": (SRUN | {"MASTER_ADDR": "10.0.0.1"}, replace(BY_SRUN, master="10.0.0.1")),
    "srun of a script that sets all four": (SRUN | BY_HAND, SET_BY_HAND),
    "srun --mpi=pmi2": (SRUN | {"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_FD": "9"}, replace(BY_SRUN, mpi=True)),
    "srun --mpi=pmix": (SRUN | {"PMIX_RANK": "3"}, replace(BY_SRUN, mpi=True)),
    "the batch script": (BATCH, None),
    "the batch script as a step": (BATCH | {"SLURM_STEP_ID": "4294967291"}, None),
    "the batch script as a step of an old Slurm": (BATCH | {"SLURM_STEP_ID": "4294967294"}, None),
    "salloc's shell": (SRUN | {"SLURM_STEP_ID": "4294967290"}, None),
    "srun --pty bash": (SRUN | {"SLURM_PTY_PORT": "45123", "SLURM_PROCID": "0"}, None),
    "srun -n 1": (STEP_OF_ONE, None),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_launcher_says(name: str) -> None:
    environment, expected = CASES[name]
    assert launched(environment) == expected


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (without(BY_HAND, "RANK"), "set but not RANK; start all nodes with torchrun, mpirun or srun, or with --nproc"),
        (without(BY_HAND, "WORLD_SIZE"), "but not WORLD_SIZE;"),
        (without(BY_HAND, "MASTER_ADDR", "MASTER_PORT"), "RANK, WORLD_SIZE set but not MASTER_ADDR, MASTER_PORT;"),
        (BATCH | without(BY_HAND, "MASTER_ADDR"), "but not MASTER_ADDR;"),
        (BY_HAND | {"RANK": "one"}, "RANK and WORLD_SIZE must be integers"),
        (BY_HAND | {"WORLD_SIZE": ""}, "must be integers"),
        (BY_HAND | {"RANK": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
        (BY_HAND | {"RANK": "-1"}, "RANK=-1 is not below"),
        (BY_HAND | {"WORLD_SIZE": "0", "RANK": "0"}, "RANK=0 is not below WORLD_SIZE=0"),
        (BY_HAND | {"MASTER_PORT": "tcp://10.0.0.1:80"}, "MASTER_PORT='tcp://10.0.0.1:80' is no port"),
        (BY_HAND | {"MASTER_PORT": "0"}, "MASTER_PORT='0' is no port; it must be an integer from 1 to 65535"),
        (BY_HAND | {"MASTER_PORT": "65536"}, "is no port"),
        (BY_HAND | {"MASTER_ADDR": ""}, "MASTER_ADDR is empty"),
        (BY_HAND | {"LOCAL_RANK": "x"}, "LOCAL_RANK='x' must be an integer"),
        (without(TORCHRUN, "RANK"), "WORLD_SIZE, MASTER_ADDR, MASTER_PORT set but not RANK;"),
        ({"TORCHELASTIC_RUN_ID": "x"}, "the variables of torchrun set but not RANK"),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_SIZE"), "OMPI_COMM_WORLD_RANK set but not OMPI_COMM_WORLD_SIZE;"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "4"}, "OMPI_COMM_WORLD_RANK=4 is not below OMPI_COMM_WORLD_SIZE=4"),
        (OPEN_MPI | {"MASTER_ADDR": "node-a"}, "MASTER_ADDR set but not MASTER_PORT"),
        (OPEN_MPI | {"MASTER_PORT": "29500"}, "MASTER_PORT set but not MASTER_ADDR"),
        (without(HYDRA, "PMI_RANK"), "PMI_SIZE set but not PMI_RANK"),
        (without(SRUN, "SLURM_PROCID"), "set but not SLURM_PROCID"),
        (without(SRUN, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "set but not SLURM_NTASKS"),
        (SRUN | {"SLURM_PROCID": "7"}, "SLURM_PROCID=7 is not below SLURM_STEP_NUM_TASKS=4"),
        (SRUN | {"SLURM_JOB_ID": "none"}, "SLURM_JOB_ID='none' must be an integer"),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[01-"}, "node list 'gpu[01-' cannot be read"),
        (without(SRUN, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"), "set MASTER_ADDR"),
    ],
)
def test_half_an_environment_is_refused(environment: Mapping[str, str], told: str) -> None:
    with pytest.raises(MissingEnvironmentError) as caught:
        launched(environment)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("login", ["login"]),
        ("gpu[01-03,07],login", ["gpu01", "gpu02", "gpu03", "gpu07", "login"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[0,5]-ib", ["r1n0-ib", "r1n5-ib", "r2n0-ib", "r2n5-ib"]),
        ("a,b[1],c", ["a", "b1", "c"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("", []),
    ],
)
def test_a_node_list(text: str, expected: list[str]) -> None:
    assert slurm.expanded(text) == expected


@pytest.mark.parametrize("text", ["n[1", "n1]", "n[]", "n[a-b]", "n[3-1]", "n[1-]", "[", "n[1[2]]", "n[0-9999999]"])
def test_a_node_list_that_is_none(text: str) -> None:
    with pytest.raises(MissingEnvironmentError, match="cannot be read; required: names such as"):
        slurm.expanded(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,2", [1, 2]), ("", []), ("2(x", []), ("2(x99999999)", [])],
)
def test_tasks_per_node(text: str, expected: list[int]) -> None:
    assert slurm.repeated(text) == expected


def test_tasks_of_a_step_agree_on_a_port_and_other_steps_and_jobs_have_others() -> None:
    ports = {
        slurm.port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        for job in range(81_000, 81_100)
        for step in range(5)
    }
    assert len(ports) == 500
    assert all(20_000 <= port < 30_000 for port in ports)


def test_a_meeting_point_as_torch_takes_it() -> None:
    assert SET_BY_HAND.meeting == "tcp://node-a:29500"
    assert replace(SET_BY_HAND, master="::1").meeting == "tcp://[::1]:29500"
    assert BY_SRUN.meeting == f"tcp://gpu01:{PORT}"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        (SRUN, False),
        (SRUN | {"SLURM_PROCID": "0"}, True),
        (OPEN_MPI, False),
        (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"RANK": "3"}, False),
        ({"RANK": "0"}, True),
        ({"OMPI_COMM_WORLD_RANK": "x", "OMPI_COMM_WORLD_SIZE": "2"}, True),
    ],
)
def test_one_rank_speaks_for_its_job(environment: Mapping[str, str], expected: bool) -> None:
    """Under mpirun and srun RANK is not set, and every rank once printed each warning and its own JSON document."""
    assert is_first(environment) is expected


def test_the_variables_that_were_read() -> None:
    assert list(variables({"RANK": "1", "HOME": "/root", "PMI_SIZE": "2"})) == ["PMI_SIZE=2", "RANK=1"]
