"""Pushes through MPI's windows, in ranks of a real mpirun: none is torn, none is found twice, and no sum is lost."""

import json
from pathlib import Path

import pytest

from tests.mpirun import mpirun

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


@pytest.mark.parametrize("more", [(), pytest.param(("0",), marks=pytest.mark.long)], ids=["windows", "messages"])
def test_pushes_of_three_ranks_to_each_other(tmp_path: Path, more: tuple[str, ...]) -> None:
    ended = mpirun(3, Path.cwd(), "-m", "tests.transport.pushes_under_mpi", str(tmp_path), *more)
    assert ended.returncode == 0, ended.stderr
    for rank in range(3):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert len(found) == 10
        assert [what for what, is_so in found.items() if not is_so] == []
    assert "Error" not in ended.stderr
