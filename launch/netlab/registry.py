"""Which labs there are on this machine, and who made them: a stale one is removed, a living one never."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import iproute
from faults import LabError
from names import Names

FOLDER = Path("/run/netlab")
NETNS_ETC = Path("/etc/netns")
_PATIENCE_S = 5.0


def claim(names: Names) -> None:
    """Writes down that this process owns a lab, before anything of it is made.

    Raises:
        LabError: the record cannot be written.
    """
    record = {"pid": os.getpid(), "started": started(os.getpid()), "hosts": names.hosts}
    try:
        FOLDER.mkdir(mode=0o755, exist_ok=True)
        with _record(names.lab).open("x") as file:
            json.dump(record, file)
    except OSError as error:
        raise LabError(f"cannot keep a record in {FOLDER} ({error.strerror}); it must be writable") from error


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None where there is none. With its number, it is unique."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def stale() -> list[Names]:
    """The labs whose maker is gone."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            names, owner = Names(path.stem, int(record["hosts"])), (int(record["pid"]), int(record["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another clean took it away, or its maker is just writing it
        if started(owner[0]) != owner[1]:
            found.append(names)
    return found


def clean() -> list[str]:
    """Removes stale labs; their identifiers."""
    if not FOLDER.is_dir():
        return []
    with _alone():
        found = stale()
        for names in found:
            remove(names)
    return [names.lab for names in found]


def remove(names: Names) -> None:
    """Takes a lab down, as far as it was built: its processes, namespaces (with all links in them), files, record."""
    _end_processes(names)
    for namespace in names.namespaces:
        with suppress(LabError):
            iproute.ip("netns", "del", namespace)
        with suppress(OSError):
            (NETNS_ETC / namespace / "hosts").unlink()
        with suppress(OSError):
            (NETNS_ETC / namespace).rmdir()
    with suppress(OSError):
        NETNS_ETC.rmdir()  # refused while it holds anything
    _record(names.lab).unlink(missing_ok=True)


def _end_processes(names: Names) -> None:
    """No process may outlive its namespace: it would hold the links, and nobody could find it any more."""
    end = monotonic() + _PATIENCE_S
    while (left := [pid for name in names.namespaces for pid in iproute.pids(name)]) and monotonic() < end:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.02)


def _record(lab: str) -> Path:
    return FOLDER / f"{lab}.json"


@contextmanager
def _alone() -> Iterator[None]:
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
