"""The network lab: its modules, which are no package's, and whether this machine can make one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

NETLAB = Path(__file__).parents[2] / "launch" / "netlab"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """`part("link")` is a module of the lab, imported as its own program does."""
    monkeypatch.syspath_prepend(str(NETLAB))
    return import_module


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips where no lab can be made; found out without the lab's own code, so that its faults cannot hide here."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [name for name in ("ip", "tc", "unshare") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("needs /dev/net/tun")
    name = f"probe-{os.getpid()}"
    try:
        for words in (["ip", "netns", "add", name], ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", *TBF]):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"`{' '.join(words)}` is refused here: {done.stderr.strip()}")
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


TBF = ["tbf", "rate", "1mbit", "burst", "5000", "limit", "9000"]


def netlab(*words: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """`python launch/netlab WORDS`, to its end."""
    return subprocess.run(
        [sys.executable, str(NETLAB), *words], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
