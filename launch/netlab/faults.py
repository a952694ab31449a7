"""What ends a lab early: a fault that the user can mend, and a signal."""

import signal
from types import FrameType
from typing import NoReturn

BAD_INPUT = 2
MISSING_ENVIRONMENT = 3
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LabError(Exception):
    """One line for the user, and the exit code that goes with it."""

    def __init__(self, message: str, code: int = MISSING_ENVIRONMENT) -> None:
        super().__init__(message)
        self.code = code


class StoppedError(BaseException):
    """A signal asked the lab to end; like KeyboardInterrupt, nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.code = 128 + signum


def raise_on_signals() -> None:
    """From here on Ctrl-C, SIGTERM and SIGHUP raise StoppedError, once."""
    for signum in _ENDING:
        signal.signal(signum, _stop)


def ignore_signals() -> None:
    """What takes a lab down may not be interrupted."""
    for signum in _ENDING:
        signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, _: FrameType | None) -> NoReturn:
    ignore_signals()
    raise StoppedError(signum)
