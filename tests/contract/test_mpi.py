"""Every algorithm over MPI links of a real mpirun gives the bits of the lockstep simulator."""

import json
from pathlib import Path

import pytest

from tests.contract.test_tokens import REAL
from tests.contract.under_mpi import further_variations, variations
from tests.mpirun import mpirun

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def test_four_ranks_of_mpirun_give_the_bits_of_lockstep(tmp_path: Path) -> None:
    ended = mpirun(4, Path.cwd(), "-m", "tests.contract.under_mpi", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for rank in range(4):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert len(found) == len(list(variations())) + len(list(further_variations())) + len(REAL) + 3
        assert len(found) > 70
        assert [what for what, alike in found if not alike] == []
