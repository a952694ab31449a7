"""Ask another process, for a limited time, and leave none of it behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command printed, or why it did not."""

    out: str = ""
    fault: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON object on its last line; empty where there is none."""
        try:
            found = json.loads(self.out.splitlines()[-1]) if self.out and not self.fault else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def ask(command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a command; when the time is over, it and all that it started are killed."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(fault=f"{command[0]}: {error.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Answer(fault=f"no answer within {timeout_s:.0f} s")
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    return Answer(out, _fault(process.returncode, err))


def probe(name: str, timeout_s: float = 60.0) -> Answer:
    """What one of `decentral.transport.probes` finds."""
    return ask([sys.executable, "-m", "decentral.transport.probes", name], timeout_s)


def _fault(code: int, err: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {code}"
