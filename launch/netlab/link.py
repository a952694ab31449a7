"""What every host's cable does: rate, latency, jitter, loss, and when it is pulled. Units as `tc` writes them."""

import re
from dataclasses import dataclass, field

from faults import BAD_INPUT, LabError

_BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SLOWEST_BIT_S, _FASTEST_BIT_S = 8e3, 1e11
_LONGEST_S = 60.0
_NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class Cut:
    """The cable of a host is out from `at_s` for `for_s` seconds; None: for ever."""

    host: int
    at_s: float
    for_s: float | None = None

    def pulled(self, now_s: float) -> bool:
        return self.at_s <= now_s and (self.for_s is None or now_s < self.at_s + self.for_s)


@dataclass(frozen=True)
class Link:
    """Each host's link to the switch, the same in both directions. None: not given, hence not shaped."""

    rate_bit_s: float | None = None
    latency_s: float | None = None  # one way, from host to host
    jitter_s: float | None = None
    loss: float | None = None  # of packets, from host to host
    cuts: tuple[Cut, ...] = field(default=())

    @property
    def routed(self) -> bool:
        """Whether packets have to pass the user-space router; the kernel's tbf keeps a rate alone."""
        return bool(self.cuts) or any(value is not None for value in (self.latency_s, self.jitter_s, self.loss))

    def checked(self, hosts: int) -> "Link":
        """Raises LabError where a part does not fit the others, or the number of hosts."""
        if self.jitter_s and self.jitter_s > (self.latency_s or 0):
            raise LabError("--jitter is larger than --latency; a packet cannot arrive before it was sent", BAD_INPUT)
        if missing := [cut.host for cut in self.cuts if cut.host >= hosts]:
            raise LabError(f"--cut {missing[0]}@...: there is no such host; they are 0 to {hosts - 1}", BAD_INPUT)
        return self

    def as_dict(self, hosts: int) -> dict[str, int | float | None]:
        """As the environment variable NETLAB_LINK tells it to the programs in the lab."""
        return {
            "hosts": hosts,
            "rate_bit_s": self.rate_bit_s,
            "latency_s": self.latency_s,
            "jitter_s": self.jitter_s,
            "loss": self.loss,
        }

    def told(self) -> str:
        """In words, such as `100 Mbit/s, 10 ms one way`."""
        parts = [] if self.rate_bit_s is None else [f"{self.rate_bit_s / 1e6:g} Mbit/s each way"]
        parts += [] if self.latency_s is None else [f"{1e3 * self.latency_s:g} ms one way"]
        parts += [] if self.jitter_s is None else [f"jitter {1e3 * self.jitter_s:g} ms"]
        parts += [] if self.loss is None else [f"{100 * self.loss:g}% of packets lost"]
        parts += [f"host {cut.host} cut at {cut.at_s:g} s" for cut in self.cuts]
        return ", ".join(parts) or "not shaped"


def rate(text: str) -> float:
    """`100mbit` in bits per second."""
    value = _read("--rate", text, _BITS, "a rate such as 100mbit or 1gbit (bit, kbit, mbit, gbit)")
    if not _SLOWEST_BIT_S <= value <= _FASTEST_BIT_S:
        raise LabError(f"--rate {text}: must lie between 8kbit and 100gbit", BAD_INPUT)
    return value


def duration(option: str, text: str) -> float:
    """`10ms` in seconds."""
    value = _read(option, text, _SECONDS, "a time such as 10ms or 0.5s (us, ms, s)")
    if value > _LONGEST_S:
        raise LabError(f"{option} {text}: at most {_LONGEST_S:g}s", BAD_INPUT)
    return value


def share(text: str) -> float:
    """`0.1%` as a number from 0 to below 1."""
    value = _read("--loss", text, {"%": 0.01}, "a percentage such as 0.1%")
    if value >= 1:
        raise LabError(f"--loss {text}: must be below 100%; to pull a cable use --cut HOST@TIME", BAD_INPUT)
    return value


def cut(text: str) -> Cut:
    """`3@20s` or `3@20s+5s`: host 3's cable is out from 20 s on, for 5 s."""
    found = re.fullmatch(r"(\d+)@([^+()]+)(?:\+([^+()]+)|\(\+([^+()]+)\))?", text)
    if found is None:
        raise LabError(f"--cut {text}: must be HOST@TIME or HOST@TIME+TIME, such as 3@20s+5s", BAD_INPUT)
    pause = found[3] or found[4]
    at_s, for_s = (part and _read("--cut", part, _SECONDS, "times such as 20s") for part in (found[2], pause))
    return Cut(int(found[1]), float(at_s or 0), None if for_s is None else float(for_s))


def _read(option: str, text: str, units: dict[str, float], wanted: str) -> float:
    found = re.fullmatch(_NUMBER + "(" + "|".join(map(re.escape, units)) + ")", text.strip().lower())
    if found is None:
        raise LabError(f"{option} {text}: must be {wanted}", BAD_INPUT)
    return float(found[1]) * units[found[2]]
