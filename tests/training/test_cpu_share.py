"""A process in a control group with a quota: real where the machine lets us, and both versions' files in a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decentral.errors import MissingEnvironmentError
from decentral.training.cpu_share import cpu_share, group

BURNING = """
import time
from pathlib import Path
from decentral.training.cpu_share import Home, cpu_share, group
home = Home.found()
with cpu_share(0.2):
    inside = Home.found().own
    assert inside.name.startswith("decentral-"), inside
    until_s = time.process_time() + 0.15
    while time.process_time() < until_s:
        pass
    stat = dict(line.split() for line in (inside / "cpu.stat").read_text().splitlines())
print(stat["nr_throttled"], inside.exists(), Home.found() == home)
"""


def machine(folder: Path, version: int, own: str = "/jobs/mine") -> tuple[Path, Path]:
    """What the kernel tells of processes, and the folder of this one's group, as plain files."""
    mount, proc = folder / "cpu", folder / "proc"
    home = mount / own.lstrip("/")
    home.mkdir(parents=True)
    (proc / "self").mkdir(parents=True)
    (proc / str(os.getpid())).mkdir()
    kind = f"cgroup {mount} cgroup rw,cpuacct,cpu" if version == 1 else f"cgroup2 {mount} cgroup2 rw,nosuid"
    (proc / "self/mounts").write_text(f"proc /proc proc rw 0 0\n{kind} 0 0\n")
    (proc / "self/cgroup").write_text(f"3:cpuacct,cpu:{own}\n1:name=systemd:/x:y\n" if version == 1 else f"0::{own}\n")
    (mount / "cgroup.controllers").write_text("cpuset cpu io\n")
    return proc, home


def test_version_1_has_its_group_inside_the_own_one(tmp_path: Path) -> None:
    proc, home = machine(tmp_path, 1)
    with cpu_share(0.1, proc):
        made = home / f"decentral-{os.getpid()}"
        assert int((made / "cpu.cfs_quota_us").read_text()) / int((made / "cpu.cfs_period_us").read_text()) == 0.1
        assert (made / "cgroup.procs").read_text() == str(os.getpid())
    assert (home / "cgroup.procs").read_text() == str(os.getpid())


def test_version_2_has_its_group_beside_the_own_one_and_the_kernel_s_least_quota(tmp_path: Path) -> None:
    proc, home = machine(tmp_path, 2)
    with group(0.01, proc) as (made, own):
        assert (made.parent, own) == (home.parent, home)
        assert (home.parent / "cgroup.subtree_control").read_text() == "+cpu"
        assert (made / "cpu.max").read_text() == "1000 100000"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    proc, home = machine(tmp_path, 1)
    left, living = home / "decentral-999999999", home / "decentral-1"
    left.mkdir()
    living.mkdir()
    (proc / "1").mkdir()
    with group(0.5, proc):
        assert not left.exists()
        assert living.exists()


def test_a_fault_of_what_is_done_within_stays_its_own(tmp_path: Path) -> None:
    proc, home = machine(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match="of the run"), cpu_share(0.5, proc):
        raise FileNotFoundError("of the run")
    assert (home / "cgroup.procs").read_text() == str(os.getpid())


@pytest.mark.parametrize("missing", ["self/mounts", "the controller", "the right"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    proc, home = machine(tmp_path, 1)
    if missing == "self/mounts":
        (proc / missing).unlink()
    elif missing == "the controller":
        (proc / "self/mounts").write_text("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n")
    else:
        (home / f"decentral-{os.getpid()}").write_text("no folder")
    told = {"self/mounts": "mounts", "the controller": "no cgroups with the cpu controller", "the right": "exists"}
    with pytest.raises(MissingEnvironmentError, match=rf"given 0.1 of a core here: .*{told[missing]}.* slowdown: 10"):
        cpu_share(0.1, proc).__enter__()


@pytest.mark.processes
def test_a_real_process_is_held_up_and_nothing_is_left() -> None:
    try:
        with group(0.2):
            pass
    except MissingEnvironmentError as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, "-c", BURNING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    throttled, is_there, is_back = done.stdout.split()
    assert int(throttled) > 0
    assert (is_there, is_back) == ("False", "True")
