"""Quantities as options give them: `100mbit` and `10ms` with units as `tc` writes them, `10M` parameters, `40MB`."""

import re

from decentral.errors import ConfigError

_BITS_S = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def rate(option: str, text: str) -> float:
    """`100mbit` in bits per second.

    Raises:
        ConfigError: it is no rate, or zero.
    """
    return _read(option, text, _BITS_S, "a rate such as 100mbit or 1gbit (bit, kbit, mbit, gbit)")


def duration(option: str, text: str, *, zero: bool = False) -> float:
    """`10ms` in seconds.

    Raises:
        ConfigError: it is no time, or zero where that makes no sense.
    """
    return _read(option, text, _SECONDS, "a time such as 10ms or 0.5s (us, ms, s)", zero=zero)


def parameters(option: str, text: str) -> float:
    """`10M` parameters.

    Raises:
        ConfigError: it is no number of parameters, or zero.
    """
    return _read(option, text, _COUNT, "a number of parameters such as 4810, 10M or 1.5B (k, M, B)")


def size(option: str, text: str) -> float:
    """`40MB` in bytes.

    Raises:
        ConfigError: it is no size, or zero.
    """
    return _read(option, text, _BYTES, "a size such as 40MB (B, kB, MB, GB)")


def _read(option: str, text: str, units: dict[str, float], wanted: str, *, zero: bool = False) -> float:
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(" + "|".join(units) + ")", text.strip().lower())
    if found is None or not (zero or float(found[1])):
        raise ConfigError(f"{option} {text}: must be {wanted}{'' if zero else ', above zero'}")
    return float(found[1]) * units[found[2]]
