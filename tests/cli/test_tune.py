"""`speedup --tune`: every method gets its own learning rate from the grid, and the record says how."""

from json import loads
from pathlib import Path

import pytest

from tests.cli.conftest import Command

GRID = ("-s", "tune={lr: [1.0e+9, 0.2, 0.01], rounds: 8}")
COMPARED = (*GRID, "-s", "compare=[{algorithm: qg-dsgdm, optimizer: {lr: 7}}]", "-s", "optimizer={lr: 5}")


def test_each_method_runs_at_the_rate_that_was_chosen_for_it(decentral: Command, small: Path) -> None:
    tuned = decentral("speedup", str(small), *COMPARED, "--simulated", "--tune", "--out", "run", "--json").json
    assert "--simulated --tune" in tuned["command"]
    assert tuned["tuned"] == {"seed": 0, "rounds": 8, "training_samples": 1150, "validation_samples": 288}
    assert [method["name"] for method in tuned["methods"]] == ["dsgd ring", "qg-dsgdm ring", "allreduce"]
    for method in tuned["methods"]:
        candidates = method["tuning"]["candidates"]
        assert [candidate["lr"] for candidate in candidates] == [0.01, 0.2, 1e9]
        best = max((one for one in candidates if one["failure"] is None), key=lambda one: one["accuracy"])
        assert method["tuning"]["lr"] == best["lr"]
        config = loads(Path("run", method["per_seed"][0]["folder"], "config.json").read_text())
        assert config["optimizer"]["lr"] == best["lr"]
    dsgd = tuned["methods"][0]["tuning"]
    assert "diverged" in dsgd["candidates"][2]["failure"]
    plain = decentral("simulate", str(small), "-s", f"optimizer={{lr: {dsgd['lr']}}}", "--out", "one", "--json").json
    assert plain["methods"][0]["final_accuracy"] == tuned["methods"][0]["final_accuracy"]
    page, shown = Path(tuned["report"]).read_text(), decentral("report", "run").out
    for said in ("dsgd ring diverged in the trial at lr 1e+09", f"lr {dsgd['lr']:g}", "288 training samples set aside"):
        assert said in page
        assert said in shown.replace("\n", " ")
    both = decentral("report", "run", "one", "--json").json
    numbers = {
        row["method"]: {place: row[place]["lr"] for place in ("run", "one") if place in row} for row in both["methods"]
    }
    assert numbers["dsgd"] == {"run": dsgd["lr"], "one": None}
    assert "not run" in Path(both["report"]).read_text()
    assert "lr 0.2" in decentral("report", "run", "one").out


@pytest.mark.processes
@pytest.mark.timeout(180)
@pytest.mark.long
def test_processes_choose_as_the_simulator_does(decentral: Command, small: Path) -> None:
    options = (str(small), *GRID, "-s", "nodes=2", "-s", "baselines=[]", "--tune", "--json")
    simulated = decentral("speedup", *options, "--simulated", "--out", "simulated").json
    real = decentral("speedup", *options, "--out", "real").json
    assert real["tuned"] == simulated["tuned"]
    assert real["methods"][0]["tuning"] == simulated["methods"][0]["tuning"]


def test_what_stands_against_tuning_is_told_before_anything_runs(decentral: Command, small: Path) -> None:
    missing = decentral("speedup", str(small), "--tune")
    assert missing.code == 2
    assert missing.line.startswith("--tune found no `tune:` section")
    quadratics = ("-s", "data=quadratics", "-s", "partition=null", "-s", "model={name: linear, bias: false}")
    dealt = decentral("speedup", str(small), *GRID, *quadratics, "-s", "target=null", "--simulated", "--tune")
    assert dealt.code == 2
    assert "comes dealt to nodes" in dealt.line
    assert not (small.parent / "runs").exists()
