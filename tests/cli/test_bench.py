"""`bench step` on real processes: every method is timed, and the cost model's figure stands beside it."""

import json
from pathlib import Path

import pytest

from tests.cli.test_processes import finished

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


def test_each_method_is_timed_and_foretold(small: Path) -> None:
    """No time is asserted; that the figures belong together is."""
    options = ("--repetitions", "1", "--steps", "1", "--no-rivals", "--json")
    code, out, err = finished(small.parent, "bench", "step", str(small), *options)
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["machine"]["memory_bytes_s"] > 0 < document["machine"]["loopback_bytes_s"]
    bare, *timed = document["subjects"]
    assert (bare["name"], bare["predicted_ms"]) == ("bare computation", None)
    assert [row["name"] for row in timed] == ["dsgd ring", "allreduce", "ddp"] == list(document["predictions"])
    for row in timed:
        parts = document["predictions"][row["name"]]
        step_s = parts["compute_s"] + parts["wire_s"] + parts["latency_s"] + parts["mixing_s"] - parts["hidden_s"]
        assert row["predicted_ms"] == pytest.approx(1e3 * step_s)
        assert row["predicted_over_measured"] == pytest.approx(row["predicted_ms"] / row["median_ms"])
        assert parts["compute_s"] == pytest.approx(1e-3 * bare["median_ms"])
        assert parts["latency_s"] == 0  # on one host
    assert document["predictions"]["dsgd ring"]["wire_s"] == 0  # in shared memory
    assert document["predictions"]["allreduce"]["wire_s"] > 0
