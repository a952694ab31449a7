"""`ip` and `tc`: called, and missed with a line that says what to install."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from faults import LabError

_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_FROM = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "mount": "mount"}
TUN = "/dev/net/tun"


def require(routed: bool) -> None:
    """Raises LabError unless this machine and this user can make a lab. It makes nothing."""
    if os.geteuid() != 0:
        raise LabError("netlab makes network namespaces and shapes their links, which needs root: run it with sudo")
    for name in _FROM:
        program(name)
    if routed and not os.path.exists(TUN):
        raise LabError(f"no {TUN}: latency, jitter, loss and cuts pass through TUN devices; load the module tun")


def ip(*words: str, namespace: str | None = None) -> str:
    """Runs `ip`, in a namespace if one is given; what it wrote.

    Raises:
        LabError: it refused, or is not installed.
    """
    inside = ["-n", namespace] if namespace else []
    return _run([program("ip"), *inside, *words])


def batch(namespace: str, lines: Sequence[str]) -> None:
    """Runs several `ip` commands in a namespace by one process."""
    _run([program("ip"), "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")


def shape(namespace: str, interface: str, rate_bit_s: float, burst_bytes: int, limit_bytes: int) -> None:
    """Lets no more than a rate out of an interface (tbf); what waits beyond the limit is dropped.

    Raises:
        LabError: this kernel has no tbf, or another fault.
    """
    words = ["qdisc", "replace", "dev", interface, "root", "tbf", "rate", f"{rate_bit_s:.0f}bit"]
    try:
        _run([program("tc"), "-n", namespace, *words, "burst", str(burst_bytes), "limit", str(limit_bytes)])
    except LabError as error:
        if "kind is unknown" not in str(error) and "No such file" not in str(error):
            raise
        raise LabError(
            "this kernel has no tbf queueing discipline (CONFIG_NET_SCH_TBF, module sch_tbf), which keeps --rate; "
            "netem is neither needed nor used"
        ) from error


def pids(namespace: str) -> list[int]:
    """The processes inside a namespace; none where there is no such namespace."""
    try:
        return [int(pid) for pid in ip("netns", "pids", namespace).split()]
    except LabError:
        return []


def program(name: str) -> str:
    """Where a program is; the folders of root's programs are searched too, which sudo may leave out.

    Raises:
        LabError: it is not installed.
    """
    found = shutil.which(name, path=_PLACES)
    if found is None:
        raise LabError(f"no program {name!r} here; on Debian and Ubuntu: apt-get install {_FROM[name]}")
    return found


def _run(command: Sequence[str], text: str | None = None) -> str:
    # A session of its own: the Ctrl-C that ends the lab may not end what builds it halfway.
    done = subprocess.run(command, input=text, capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        what = " ".join(command[1:] if text is None else [*command[1:], text.strip().replace("\n", "; ")])
        raise LabError(f"`{os.path.basename(command[0])} {what}` failed: {said[0]}")
    return done.stdout
