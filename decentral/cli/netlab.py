"""`--netlab HOSTS`: a verb's ranks on the hosts of `launch/netlab`, which runs as a program of its own."""

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from types import FrameType
from typing import TYPE_CHECKING

from decentral.errors import INTERRUPTED, ConfigError, DecentralError, MissingEnvironmentError
from decentral.shipped import shipped

if TYPE_CHECKING:
    from decentral.measure.comparison import Network
    from decentral.transport.launch import Ending

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SET_PARENT_DEATH_SIGNAL = 1
_LOOK_EVERY_S = 0.1  # as often as torchrun's launcher does
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Lab:
    """The lab that was asked for.

    Args:
        hosts: how many, one per node.
        options: words for `launch/netlab` that say what its links do.
    """

    hosts: int
    options: tuple[str, ...]

    def check(self, nodes: int) -> None:
        """Whether it fits the experiment, and the lab can be made here; nothing is made.

        Raises:
            ConfigError: another number of hosts than nodes, or an option that the lab refuses.
            MissingEnvironmentError: not root, or a program or a part of the kernel is missing.
        """
        if self.hosts != nodes:
            raise ConfigError(
                f"--netlab {self.hosts} for nodes: {nodes}; one host is one node, so use --netlab {nodes} "
                f"or -s nodes={self.hosts}"
            )
        asked = [*self._command(), "--dry-run", "--", "true"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode:
            known = {error.exit_code: error for error in (ConfigError, MissingEnvironmentError)}
            said = done.stderr.strip().splitlines()
            raise known.get(done.returncode, DecentralError)(said[-1].removeprefix("netlab: ") if said else "no lab")

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> "Ending":
        """Run `python -m decentral ARGUMENTS` as one rank per host and wait for their end."""
        from decentral.transport.launch import Ended, Ending, ending_of

        with TemporaryDirectory(prefix="decentral-") as folder:
            report, words = Path(folder) / "report.json", f"TORCHELASTIC_ERROR_FILE={folder}/{{host}}.json"
            how = ["--prefix", "none", "--end-together", "--report", str(report), "--env", words]
            program = [sys.executable, "-m", "decentral", *arguments]
            code = _run([*self._command(), *how, "--", *program], environment)
            if report.exists():
                ranks = {
                    one["host"]: Ended(one["code"], one["ended_s"], Path(folder) / f"{one['host']}.json")
                    for one in json.loads(report.read_text())
                }
                return ending_of(ranks)
        if code == INTERRUPTED:
            return Ending(code, "interrupted", said=False)
        if code > 128:
            return Ending(code, f"ended by {signal.Signals(code - 128).name}", said=False)
        return Ending(code, "the network lab could not go on; it said why")

    def _command(self) -> list[str]:
        return [sys.executable, str(shipped("launch") / "netlab"), "run", "--hosts", str(self.hosts), *self.options]


def lab(
    hosts: int | None, *, rate: str | None, latency: str | None, jitter: str | None, loss: str | None
) -> Lab | None:
    """The lab that a verb's options ask for; None where they ask for none.

    Raises:
        ConfigError: its links are described but it is not asked for, or this process is a rank already.
    """
    from decentral.transport.launcher import launched

    asked = {"--rate": rate, "--latency": latency, "--jitter": jitter, "--loss": loss}
    given = {option: value for option, value in asked.items() if value is not None}
    if hosts is None:
        if given:
            raise ConfigError(f"{' '.join(given)} given without --netlab HOSTS, which makes the network it describes")
        return None
    if (this := launched()) is not None:
        raise ConfigError(f"--netlab starts its own ranks, and {this.launcher} has started this one; use one of them")
    return Lab(hosts, tuple(word for pair in given.items() for word in pair))


def options_of(network: "Network") -> list[str]:
    """The options of a verb that ask for this lab."""
    words = ["--netlab", str(network.hosts)]
    for option, value, scale, unit in (
        ("--rate", network.rate_bit_s, 1e-6, "mbit"),
        ("--latency", network.latency_s, 1e3, "ms"),
        ("--jitter", network.jitter_s, 1e3, "ms"),
        ("--loss", network.loss, 100, "%"),
    ):
        words += [] if value is None else [option, f"{value * scale:.12g}{unit}"]
    return words


def here() -> str:
    """The options that ask for the lab that this rank runs in, each after a blank; empty outside a lab."""
    from decentral.measure.record import network

    return "" if (found := network()) is None else f" {shlex.join(options_of(found))}"


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the lab until it has taken itself down, whatever signals come meanwhile; its exit code."""
    with _signals_held() as came:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, start_new_session=True, preexec_fn=_end_with_parent
        )
        # The lab ends its ranks and itself at a signal: it is passed on, and waited for.
        while (code := process.poll()) is None:
            if came:
                process.send_signal(came.pop())
            sleep(_LOOK_EVERY_S)
        return code


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Within it, signals to end this process are kept in the list."""
    came: list[int] = []

    def keep(signum: int, _: FrameType | None) -> None:
        came.append(signum)

    before = {signum: signal.signal(signum, keep) for signum in _FORWARDED}
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _end_with_parent() -> None:
    _LIBC.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
