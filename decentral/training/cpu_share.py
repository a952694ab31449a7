"""A process that the operating system itself makes slow: it gets a share of one core, by a control group with a quota.

Linux has control groups in two versions, and a machine has the `cpu` controller in one of them. A group is made for the
process (version 1: inside its own; version 2: beside it, since a group that has processes may have no groups with
controllers in it), and removed when it has left it; what a killed process leaves behind is empty, and the next one
removes it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from decentral.errors import MissingEnvironmentError

PERIOD_US, LEAST_QUOTA_US = 50_000, 1_000
"""How often a process gets its share, unless that would be less than the kernel gives."""

_NAME = "decentral-"
_PROC = Path("/proc")


class Home(NamedTuple):
    """Where a process is, and where a group for it may be made."""

    version: int
    own: Path
    around: Path

    @classmethod
    def found(cls, proc: Path = _PROC) -> "Home":
        """This process's.

        Args:
            proc: where the kernel tells of processes.

        Raises:
            OSError: this is no Linux.
            LookupError: the machine has no control groups for processors.
        """
        paths = {name: path for _, names, path in _colons(proc / "self/cgroup") for name in names.split(",")}
        for _, folder, kind, options, *_ in map(str.split, (proc / "self/mounts").read_text().splitlines()):
            mount = Path(folder)
            if kind == "cgroup" and "cpu" in options.split(","):
                own = _inside(mount, paths["cpu"])
                return cls(1, own, own)
            if kind == "cgroup2" and "cpu" in (mount / "cgroup.controllers").read_text().split():
                own = _inside(mount, paths[""])
                return cls(2, own, own if own == mount else own.parent)
        raise LookupError("no cgroups with the cpu controller are mounted")

    def limit(self, group: Path, share: float) -> None:
        """Give a group its quota, of one core."""
        period_us = max(PERIOD_US, round(LEAST_QUOTA_US / share))
        quota_us = round(share * period_us)
        if self.version == 1:
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {period_us}")


def _colons(file: Path) -> Iterator[list[str]]:
    """Lines of three parts, of which the last may have colons."""
    return (line.split(":", 2) for line in file.read_text().splitlines())


def _inside(mount: Path, path: str) -> Path:
    """A group's folder; the top where what is mounted does not reach as far up, as in a container."""
    inside = mount / path.lstrip("/")
    return inside if ".." not in inside.parts and inside.is_dir() else mount


@contextmanager
def group(share: float, proc: Path = _PROC) -> Iterator[tuple[Path, Path]]:
    """A new group that gets `share` of one core, and the group that this process is in.

    Raises:
        MissingEnvironmentError: none can be made here.
    """
    try:
        home = Home.found(proc)
        _sweep(home.around, proc)
        made = home.around / f"{_NAME}{os.getpid()}"
        if home.version == 2:
            (home.around / "cgroup.subtree_control").write_text("+cpu")
        made.mkdir(exist_ok=True)
    except (OSError, LookupError) as error:
        raise _refused(share, error) from error
    try:
        _write(partial(home.limit, made, share), share)
        yield made, home.own
    finally:
        with suppress(OSError):  # a process that this one has started is still in it
            made.rmdir()


@contextmanager
def cpu_share(share: float, proc: Path = _PROC) -> Iterator[None]:
    """Within it this process, all its threads together, gets at most `share` of one core.

    Raises:
        MissingEnvironmentError: that cannot be had here.
    """
    with group(share, proc) as (made, own):
        enter, leave = (partial((each / "cgroup.procs").write_text, str(os.getpid())) for each in (made, own))
        _write(enter, share)
        try:
            yield
        finally:
            _write(leave, share)


def _write(write: Callable[[], object], share: float) -> None:
    try:
        write()
    except OSError as error:
        raise _refused(share, error) from error


def _sweep(around: Path, proc: Path) -> None:
    """Remove groups of processes that are gone."""
    for left in around.glob(f"{_NAME}*"):
        if not (proc / left.name.removeprefix(_NAME)).exists():
            with suppress(OSError):
                left.rmdir()


def _refused(share: float, error: Exception) -> MissingEnvironmentError:
    return MissingEnvironmentError(
        f"a process cannot be given {share:g} of a core here: {error}; that takes Linux control groups (cgroups) with "
        f"the cpu controller that this user may write to, mostly root; use slowdown: {1 / share:g}, or start that "
        f"process in a container of its own (docker run --cpus {share:g})"
    )
