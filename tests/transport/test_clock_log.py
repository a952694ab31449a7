"""The event log's lines, which are put together by hand where there are many of them."""

import json
from collections.abc import Callable
from io import StringIO
from math import inf
from typing import Any

import numpy as np
import pytest

from decentral.transport.clock import EventLog
from decentral.transport.clock.log import Transfer

LINES: dict[str, tuple[Callable[[EventLog, float], None], Callable[[float | None], dict[str, Any]]]] = {
    "gradient": (
        lambda log, at_s: log.gradient(3, 17, at_s, at_s),
        lambda at_s: {"node": 3, "number": 17, "from_s": at_s, "until_s": at_s},
    ),
    "message": (
        lambda log, at_s: log.message(0, 1, 2, 0.0, Transfer((at_s, 0.5), at_s, 4)),
        lambda at_s: {
            "from": 0, "to": 1, "number": 2, "at_s": 0.0, "tries": 4, "arrivals_s": [at_s, 0.5], "free_s": at_s
        },
    ),
    "taken": (
        lambda log, at_s: log.taken(4, at_s, {2: 9, 11: -1}),
        lambda at_s: {"node": 4, "at_s": at_s, "pushes": {"2": 9, "11": -1}},
    ),
    "step": (lambda log, at_s: log.step(4, at_s), lambda at_s: {"node": 4, "at_s": at_s}),
}  # fmt: skip


@pytest.mark.parametrize("event", LINES)
@pytest.mark.parametrize("at_s", [0.0, 1 / 3, 1e-7, 1e22, np.float64(0.1), inf])
def test_a_line_has_the_bytes_that_json_gives_it(event: str, at_s: float) -> None:
    """A log is compared byte by byte with that of another run, whoever of the two wrote it."""
    write, told = LINES[event]
    text = StringIO()
    write(EventLog(text), at_s)
    expected = {"event": event, **told(None if at_s == inf else at_s)}
    assert text.getvalue() == json.dumps(expected, separators=(",", ":"), allow_nan=False) + "\n"
