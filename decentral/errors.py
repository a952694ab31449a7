"""What can go wrong for a user, each with its exit code and one line: what was found, required, and to be done."""

from collections.abc import Iterable
from difflib import get_close_matches

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""


class DecentralError(Exception):
    """A fault that a user can mend. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 1
    echo = False
    """Whether another rank has told this fault already."""


class ConfigError(DecentralError):
    """Bad input: the experiment file, an option, or a file it names.

    Args:
        message: what was found, what was required, what to do.
        at: the path of keys in the experiment that is to blame; the loader turns it into `file:line:column`.
    """

    exit_code = 2

    def __init__(self, message: str, at: tuple[str | int, ...] | None = None) -> None:
        super().__init__(message)
        self.at = at


class MissingEnvironmentError(DecentralError):
    """Something outside the experiment is missing: a package, a launcher's variables, a free port."""

    exit_code = 3


class LostNeighborError(DecentralError):
    """A neighbor died or stayed silent beyond the timeout."""

    exit_code = 4


class LostMeetingError(LostNeighborError):
    """The store in which the ranks of a run that survives deaths agree is gone, with the process that kept it."""


class DivergedError(DecentralError):
    """A loss became infinite or NaN."""

    exit_code = 5

    @classmethod
    def at(cls, node: int, round: int, loss: float) -> "DivergedError":
        """The node and round that a loss was found not to be finite in."""
        return cls(
            f"node {node} diverged in round {round}: its loss is {loss}; lower optimizer.lr, or check the data for NaN"
        )


class PreemptedError(DecentralError):
    """SIGTERM ended the run, as a scheduler does to make room; where a checkpoint was written, the text says so."""

    exit_code = 143  # 128 + 15, as a shell says it


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'degree'?` where a known name is close, else the list of known names."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
