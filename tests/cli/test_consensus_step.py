"""`consensus_step: auto` from the command line: told in one line, kept, and the same where a run goes on."""

from json import loads
from pathlib import Path

import pytest

from decentral.measure.consensus_steps import FILE
from tests.cli.conftest import Command
from tests.cli.test_processes import finished

CHOCO = ("-s", "algorithm={name: choco, compression: {name: top-k, fraction: 0.5}}", "-s", "baselines=[]")


def test_check_says_what_would_be_taken_and_why(decentral: Command, small: Path) -> None:
    result = decentral("check", str(small), *CHOCO)
    assert (result.code, result.err) == (0, "")
    assert "consensus step" in result.out.splitlines()[-1]
    (found,) = decentral("check", str(small), *CHOCO, "--json").json["consensus_steps"]
    assert found["why"] == result.out.splitlines()[-1]


def test_a_simulation_keeps_it_and_takes_it_again(decentral: Command, small: Path) -> None:
    first = decentral("simulate", str(small), *CHOCO, "-s", "checkpoint={every: 6}", "--out", "run", "--json")
    gamma = first.json["methods"][0]["consensus_step"]
    told = [line for line in first.err.splitlines() if "consensus step" in line]
    assert len(told) == 1
    assert told[0].startswith(f"decentral: consensus step {gamma:.3g} for top-k fraction=0.5 on ring of 4: ")
    kept = small.parent / "run" / FILE
    (found,) = loads(kept.read_text()).values()
    assert found["consensus_step"] == gamma
    kept.write_text(kept.read_text().replace(str(gamma), "0.0625"))
    again = decentral("simulate", str(small), *CHOCO, "-s", "rounds=14", "--resume", "run", "--json")
    assert again.json["methods"][0]["consensus_step"] == 0.0625


@pytest.mark.parametrize(("value", "found"), [("1.5", "found 1.5"), ("often", "found 'often'")])
def test_another_value_is_refused(decentral: Command, small: Path, value: str, found: str) -> None:
    result = decentral("check", str(small), *CHOCO, "-s", f"algorithm.consensus_step={value}")
    assert result.code == 2
    assert f"algorithm.consensus_step: {found}; required: auto, or a number, above 0, at most 1 - gamma" in result.line


@pytest.mark.processes
def test_processes_take_what_their_launcher_found(small: Path) -> None:
    pair = ("-s", "nodes=2", "-s", "rounds=4", "-s", "topology={name: tree, branching: 1}")
    code, out, err = finished(small.parent, "train", small.name, *CHOCO, *pair, "--out", "run", "--json")
    assert code == 0, err
    (found,) = loads((small.parent / "run" / FILE).read_text()).values()
    assert loads(out)["methods"][0]["consensus_step"] == found["consensus_step"]
    assert err.count("consensus step ") == 1
