"""`explain --link`: what it predicts, what it says it assumes, and what it refuses."""

from pathlib import Path

import pytest

from decentral.cli.quantities import duration, rate
from tests.cli.conftest import Command

METHODS = """
compare:
  - algorithm: {name: dsgd, order: adapt-while-communicate}
  - topology: {name: ring, schedule: matchings}
  - algorithm: own:Twice
"""

TWICE = '''
from dataclasses import dataclass

from decentral.algorithms.algorithm import Algorithm


@dataclass(frozen=True, kw_only=True)
class Twice(Algorithm):
    """Two exchanges a round: one posted before the gradient, one after it."""

    async def step(self, state, peer):
        ticket = await peer.post((state.x,))
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        x = peer.combine(state.x, await peer.collect(ticket))
        await peer.mix_(x)
        state.x.copy_(x)
        return loss
'''


@pytest.fixture
def several(small: Path) -> Path:
    """The small experiment with other methods, the user's own among them."""
    (small.parent / "own.py").write_text(TWICE)
    small.write_text(small.read_text() + METHODS)
    return small


def test_a_slow_link_is_what_a_step_waits_for(decentral: Command, several: Path) -> None:
    """1210 float32 parameters are frames of 4904 bytes, and 48 kbit/s carry 5736 bytes of data a second."""
    asked = ("--link", "48kbit", "--latency", "10ms", "--compute", "100ms", "--json")
    document = decentral("explain", str(several), *asked).json["prediction"]
    assert document["nodes"] == 4
    assert document["link"] == {"rate_bit_s": 48_000, "latency_s": 0.01, "carried_bytes_s": None}
    found = {row["name"]: row for row in document["methods"]}
    frame_s = 4904 / 5736
    expected = {
        "dsgd ring": 0.1 + 2 * frame_s + 0.01,
        "dsgd awc ring": 2 * frame_s + 0.01,
        "dsgd ring matchings": 0.1 + frame_s + 0.01,
        "own:Twice ring": 2 * (2 * frame_s + 0.01),
        "allreduce": 0.1 + 1.5 * 4840 / 5736,
    }
    assert {name: found[name]["step_s"] for name in expected} == pytest.approx(expected, rel=0.01)
    assert found["own:Twice ring"]["hidden_s"] == pytest.approx(0.1)
    assert found["ddp"]["over_ddp"] == 1
    for row in found.values():
        parts = row["compute_s"] + row["wire_s"] + row["latency_s"] + row["mixing_s"] - row["hidden_s"]
        assert row["step_s"] == pytest.approx(parts)
        assert row["efficiency"] == pytest.approx(0.1 / row["step_s"])


def test_the_table_names_link_and_nodes_and_says_what_it_assumes(decentral: Command, small: Path) -> None:
    out = decentral("explain", str(small), "--link", "100mbit", "--latency", "1ms").out
    assert "predicted step of 4 nodes, 100 Mbit/s each way, 1 ms one way:" in out
    assert "one rank per host, each like this machine" in out
    assert "measured here with 1 thread, one rank alone" in out
    for column in ("compute", "communication", "of it hidden", "step", "efficiency", "over DDP"):
        assert column in out
    on_one = decentral("explain", str(small), "--link", "none", "--compute", "60ms").out
    assert "predicted step of 4 nodes on one host:" in on_one
    assert "all 4 ranks on this host, neighbors in shared memory" in on_one
    assert "a step computes for 60 ms, as --compute says" in on_one


def test_without_a_link_nothing_is_predicted(decentral: Command, small: Path) -> None:
    assert decentral("explain", str(small), "--json").json["prediction"] is None
    assert "predicted" not in decentral("explain", str(small)).out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--link", "100m"], "--link 100m: must be a rate such as 100mbit or 1gbit (bit, kbit, mbit, gbit), above"),
        (["--link", "0mbit"], "--link 0mbit: must be a rate"),
        (["--link", "-1mbit"], "--link -1mbit: must be a rate"),
        (["--link", "1e400mbit"], "--link 1e400mbit: must be a rate"),
        (["--link", "1mbit", "--latency", "5"], "--latency 5: must be a time such as 10ms or 0.5s (us, ms, s)"),
        (["--link", "1mbit", "--compute", "0ms"], "--compute 0ms: must be a time such as 10ms or 0.5s (us, ms, s), ab"),
        (["--latency", "1ms"], "--latency given without --link RATE"),
        (["--compute", "1ms"], "--compute given without --link RATE"),
        (["--link", "none", "--latency", "1ms"], "--latency with --link none"),
    ],
)
def test_nonsense_is_refused_in_one_line(decentral: Command, small: Path, options: list[str], line: str) -> None:
    result = decentral("explain", str(small), *options)
    assert result.code == 2
    assert result.line.startswith(line)


def test_rates_and_times_in_their_units() -> None:
    assert [rate("--link", text) for text in ("100mbit", "1.5Gbit", "8bit")] == [1e8, 1.5e9, 8]
    assert (duration("--latency", "10ms"), duration("--latency", "0.5s")) == (0.01, 0.5)
    assert duration("--latency", "20us") == pytest.approx(2e-5)
    assert duration("--latency", "0ms", zero=True) == 0
