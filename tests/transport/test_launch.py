"""The launcher of one machine's ranks: the exit code that tells most comes back."""

import signal
import subprocess
import sys

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from decentral.transport.launch import verdict


def failure(rank: int, exitcode: int, at: int) -> ProcessFailure:
    failed = ProcessFailure(local_rank=rank, pid=1000 + rank, exitcode=exitcode, error_file="none")
    failed.timestamp = at
    return failed


def code(*failures: tuple[int, int, int]) -> int:
    """Of failures given as (rank, exit code or minus the signal, when)."""
    return verdict({rank: failure(rank, exitcode, at) for rank, exitcode, at in failures})[0]


@pytest.mark.parametrize("exitcode", [1, 2, 3, 4, 5, 130])
def test_a_ranks_own_exit_code_comes_back(exitcode: int) -> None:
    assert code((0, exitcode, 10)) == exitcode


def test_the_first_to_fail_has_the_say() -> None:
    """A diverged node (5) ends before the neighbors that lose it (4), and torchrun then ends the rest by SIGTERM."""
    assert code((0, 4, 12), (1, -signal.SIGTERM, 13), (2, 5, 11)) == 5
    assert code((2, 4, 11), (0, 5, 12)) == 4


def test_of_two_at_once_the_lower_rank_has_the_say() -> None:
    assert code((3, 5, 10), (1, 4, 10)) == 4


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_rank_that_a_signal_ended_is_a_lost_neighbor_with_the_signals_name(by: signal.Signals) -> None:
    """The kernel's out-of-memory killer leaves no word: without this line the job ends in silence."""
    ending = verdict({2: failure(2, -by, 10), 0: failure(0, 4, 11)})
    assert ending.code == 4
    assert ending.reason == f"node 2 was ended by {by.name}; the others were stopped"


def test_whom_the_launcher_ended_is_not_the_cause() -> None:
    """Once one rank has failed torchrun ends the others by SIGTERM, all within the second that timestamps tell."""
    assert code((0, -signal.SIGTERM, 10), (1, 5, 10), (2, -signal.SIGTERM, 9)) == 5
    assert verdict({0: failure(0, -signal.SIGTERM, 10), 1: failure(1, -signal.SIGKILL, 10)})[1].startswith("node 1")
    assert code((0, -signal.SIGTERM, 10), (1, -signal.SIGTERM, 10)) == 4


def test_an_interrupt_is_the_users_own() -> None:
    assert code((1, -signal.SIGINT, 10)) == 130


@pytest.mark.processes
@pytest.mark.timeout(110)
def test_the_exit_code_of_real_ranks_comes_back() -> None:
    """Two ranks, each refusing its arguments with exit code 2, through torchrun's own launcher."""
    program = (
        "import sys\n"
        "from decentral.transport.launch import start_ranks\n"
        "sys.exit(start_ranks(2, ['train', 'there-is-no-such-file.yaml'], {'OMP_NUM_THREADS': '1'})[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("there-is-no-such-file.yaml") == 2
    assert "Traceback" not in done.stderr
