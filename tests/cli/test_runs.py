"""`simulate`, `explain`, `report` and `topology` in this process: what they leave behind and what they print."""

import os
from json import loads
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import Command


def test_a_simulated_run_leaves_a_whole_record(decentral: Command, small: Path) -> None:
    result = decentral("simulate", str(small), "--out", "run", "--json")
    assert result.code == 0
    run = small.parent / "run"
    assert {path.name for path in run.iterdir()} == {
        "comparison.json", "config.json", "data.json", "metrics.jsonl", "models", "started.json", "topology.json",
        "versions.json",
    }  # fmt: skip
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1 + 12 // 4
    models = [load_file(run / "models" / f"node-{node}.safetensors") for node in range(4)]
    assert {name: tuple(t.shape) for name, t in models[0].items()} == {
        "1.weight": (16, 64), "1.bias": (16,), "3.weight": (10, 16), "3.bias": (10,),
    }  # fmt: skip
    assert any((models[0][name] != models[1][name]).any() for name in models[0])  # every node's model is its own
    (method,) = result.json["methods"]
    assert method["name"] == "dsgd ring"
    assert method["per_seed"][0]["final_accuracy"] > 0.5


def test_explain_foretells_the_bytes_that_a_run_counts(decentral: Command, small: Path) -> None:
    """A dry run of too few rounds once foretold 0 bytes for a method that mixes in every 100th round."""
    every = {"algorithm.every=1": 12, "algorithm.every=100": 250, "algorithm.order=adapt-while-communicate": 12}
    for override, rounds in every.items():
        overrides = ("-s", override, "-s", f"rounds={rounds}", "-s", "evaluate_every=1000", "--json")
        plan = decentral("explain", str(small), *overrides).json
        run = decentral("simulate", str(small), *overrides).json
        foretold = plan["methods"][0]["bytes_per_round_busiest_node"] * plan["rounds"]
        assert foretold == pytest.approx(run["methods"][0]["bytes_per_node"])


def test_what_control_costs_is_foretold_but_for_its_further_steps_and_recorded(decentral: Command, small: Path) -> None:
    """The model has 1210 numbers, so a step is a message of 4904 bytes to each of two neighbors."""
    asked = "algorithm={name: consensus-control, of: dsgd, target: 0.1}"
    (plan,) = decentral("explain", str(small), "-s", asked, "-s", "baselines=[]", "--json").json["methods"]
    assert plan["control"].startswith("the bytes are the method's own and those that watch the consensus distance")
    decentral("simulate", str(small), "-s", asked, "--out", "run")
    row = loads((small.parent / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    control = row["control"]
    assert 0 < control["extra_steps"] <= control["exchanges"]
    assert row["consensus_distance"] <= control["bound"] <= 0.1
    more = row["bytes_sent"][0] - 12 * plan["bytes_per_round_busiest_node"]
    further = control["exchanges"] - 12
    looks = (more - further * 2 * 4904) / (2 * 2 * (64 + 16 * 4))  # a look floods two hops
    assert looks == int(looks) >= 0


def test_explain_draws_and_tells_how_to_launch(decentral: Command, small: Path) -> None:
    out = decentral("explain", str(small)).out
    assert "spectral gap 0.6667" in out
    assert f"decentral train {small} --nproc 4" in out
    assert "torchrun --nnodes 4" in out
    assert f"mpirun -n 4 --hostfile HOSTS --bind-to none decentral train {small}" in out
    assert f"decentral launch {small} --with slurm " in out


def test_a_run_folder_is_never_written_over(decentral: Command, small: Path) -> None:
    assert decentral("simulate", str(small), "--out", "run").code == 0
    before = (small.parent / "run" / "metrics.jsonl").read_bytes()
    again = decentral("simulate", str(small), "--out", "run")
    assert again.code == 2
    assert "run exists and is not empty" in again.line
    assert (small.parent / "run" / "metrics.jsonl").read_bytes() == before


def test_a_report_of_a_run(decentral: Command, small: Path) -> None:
    decentral("simulate", str(small), "--out", "run")
    result = decentral("report", "run", "--json")
    assert result.code == 0
    page = Path(result.json["report"]).read_text()
    assert "dsgd ring" in page
    nothing = decentral("report", "nowhere")
    assert nothing.code == 2
    assert "nowhere" in nothing.line


def test_a_loss_that_is_not_finite_ends_the_run(decentral: Command, small: Path) -> None:
    result = decentral("simulate", str(small), "-s", "optimizer.lr=1e9", "--out", "run", "--json")
    assert result.code == 5
    assert "diverged in round" in result.json["error"]
    assert (small.parent / "run" / "metrics.jsonl").exists()
    assert "diverged" in decentral("report", "run").out


def test_ddp_has_no_simulated_nodes(decentral: Command, small: Path) -> None:
    result = decentral("simulate", str(small), "-s", "algorithm=ddp")
    assert result.code == 2
    assert "decentral train" in result.line
    assert not (small.parent / "runs").exists()


def test_a_comparison_on_simulated_nodes(decentral: Command, small: Path) -> None:
    """The gossip run is `simulate`'s, to the bit; DDP is left out, and no seconds are told."""
    options = ["-s", "compare=[{topology: complete}]", "-s", "seeds=[1, 0]"]
    document = decentral("speedup", str(small), *options, "--simulated", "--out", "all", "--json").json
    assert [method["algorithm"] for method in document["methods"]] == ["dsgd", "dsgd", "allreduce"]
    assert (document["clock"], document["seeds"]) == ("none", [0, 1])
    assert "--simulated" in document["command"]
    assert Path(document["report"]).is_file()
    decentral("simulate", str(small), *options, "--out", "one", "--json")
    one, all_ = (Path(path, "models", "node-2.safetensors").read_bytes() for path in ("one", "all/00-dsgd-ring/seed-1"))
    assert one == all_


@pytest.mark.parametrize("option", ["--nproc=4", "--trace", "--netlab=4", "--predict"])
def test_a_simulated_comparison_starts_no_processes(decentral: Command, small: Path, option: str) -> None:
    result = decentral("speedup", str(small), "--simulated", option, "-s", "clock={gradient_s: 0.1}")
    assert result.code == 2
    assert result.line.startswith(f"{option.partition('=')[0]} with --simulated")


def test_a_prediction_needs_a_clock_and_rates_that_are_chosen(decentral: Command, small: Path) -> None:
    result = decentral("speedup", str(small), "--nproc", "4", "--predict")
    assert result.code == 2
    assert "found no clock: section" in result.line
    tuned = ("--tune", "-s", "tune={lr: [0.1, 0.2]}", "-s", "clock={gradient_s: 0.1}")
    result = decentral("speedup", str(small), "--nproc", "4", "--predict", *tuned)
    assert result.code == 2
    assert result.line.startswith("--predict with --tune")


def test_a_users_graph_outside_the_repository(decentral: Command, small: Path) -> None:
    (small.parent / "graphs").mkdir()
    (small.parent / "graphs" / "wheel.py").write_text(
        'import networkx as nx\n\ndef build(nodes, *, hub: int = 0):\n    """A wheel."""\n'
        "    return nx.relabel_nodes(nx.wheel_graph(nodes), {0: hub, hub: 0})\n"
    )
    result = decentral("simulate", str(small), "-s", "topology={name: ./graphs/wheel.py, hub: 2}", "--json")
    assert result.code == 0
    (summary,) = result.json["topologies"].values()
    assert summary["max_degree"] == 3
    wrong = decentral("simulate", str(small), "-s", "topology={name: ./graphs/wheel.py, hub: two}")
    assert wrong.code == 2
    assert "topology.hub" in wrong.line


def test_a_users_own_data_and_model(decentral: Command, small: Path) -> None:
    (small.parent / "my_task.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def load(samples: int):\n"
        "    x = torch.randn(samples, 5, generator=torch.Generator().manual_seed(0))\n"
        "    y = (x.sum(1) > 0).long()\n"
        "    return x, y, x[:50], y[:50]\n\n"
        "def build():\n    return nn.Linear(5, 2)\n"
    )
    overrides = ("-s", "data={name: my_task:load, samples: 200}", "-s", "model=my_task:build")
    result = decentral("simulate", str(small), *overrides, "--json")
    assert result.code == 0
    assert result.json["parameters"] == 12
    assert result.json["methods"][0]["final_accuracy"] > 0.8


def test_quadratics_are_scored_by_their_loss(decentral: Command, small: Path) -> None:
    overrides = ["data=quadratics", "model={name: linear, bias: false}", "dtype=float64", "target=1", "partition=null"]
    result = decentral("simulate", str(small), *(word for key in overrides for word in ("-s", key)), "--json")
    assert result.code == 0, result.err
    (method,) = result.json["methods"]
    assert result.json["score"] == "test_loss"
    assert method["final_accuracy"] is None
    assert method["final_test_loss"] > 0


def test_the_gallery_is_listed_and_shown(decentral: Command) -> None:
    names = decentral("topology", "list", "--json").json
    assert {"ring", "torus", "complete", "star", "exponential", "hypercube", "davis"} <= set(names)
    shown = decentral("topology", "show", "torus", "--nodes", "32", "-s", "rows=4", "--json").json
    assert shown["ln"] == pytest.approx(-0.6, abs=1e-3)
    assert "spectral gap" in decentral("topology", "show", "ring", "--nodes", "8").out
    wrong = decentral("topology", "show", "rnig")
    assert wrong.code == 2
    assert "did you mean 'ring'" in wrong.line


def test_half_a_launchers_environment_is_told(decentral: Command, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RANK", "0")
    result = decentral("train", str(small))
    assert result.code == 3
    assert "WORLD_SIZE" in result.line


def test_another_number_of_processes_than_nodes(decentral: Command, small: Path) -> None:
    result = decentral("train", str(small), "--nproc", "3")
    assert result.code == 2
    assert "-s nodes=3" in result.line
    assert not (small.parent / "runs").exists()


def test_running_statistics_are_evaluated_and_saved_as_trained(decentral: Command, small: Path) -> None:
    """A fresh module once stood in for the trained one: BatchNorm was saved with mean 0 and scored so."""
    (small.parent / "normed.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))\n"
    )
    overrides = ("-s", "model=normed:build", "-s", "nodes=1", "-s", "rounds=100", "--out", "run", "--json")
    result = decentral("simulate", str(small), *overrides)
    assert "running statistics are not averaged" in result.err
    saved = load_file(small.parent / "run" / "models" / "node-0.safetensors")
    assert saved["2.num_batches_tracked"] == 100
    assert saved["2.running_mean"].abs().max() > 0.01
    assert result.json["methods"][0]["final_accuracy"] > 0.9


def test_an_algorithm_of_the_users_own(decentral: Command, small: Path) -> None:
    (small.parent / "my_method.py").write_text(
        "from dataclasses import dataclass\n"
        "from decentral.algorithms.algorithm import Algorithm\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class TwiceMixed(Algorithm):\n"
        "    times: int = 2\n\n"
        "    async def step(self, state, peer):\n"
        "        loss, gradient = await peer.gradient(state.x)\n"
        "        state.local.step(gradient)\n"
        "        for _ in range(self.times):\n"
        "            await peer.mix_(state.x)\n"
        "        return loss\n"
    )
    own = "algorithm={name: my_method:TwiceMixed, times: 1}"
    decentral("simulate", str(small), "-s", own, "--out", "own")
    decentral("simulate", str(small), "--out", "dsgd")
    name = "models/node-2.safetensors"
    assert (small.parent / "own" / name).read_bytes() == (small.parent / "dsgd" / name).read_bytes()
    wrong = decentral("check", str(small), "-s", "algorithm={name: my_method:TwiceMixed, tims: 1}")
    assert wrong.code == 2
    assert "did you mean 'times'" in wrong.line
    assert "must be a class" in decentral("check", str(small), "-s", "algorithm=my_method:dataclass").line


def test_explain_estimates_where_the_speed_up_saturates(decentral: Command, small: Path) -> None:
    found = decentral("explain", str(small), "--noise", "--json").json["noise"]
    assert found["samples"] == 256
    assert found["critical_nodes"] == found["critical_delay_steps"] == max(found["ratio"] / found["batch_size"], 1.0)
    text = " ".join(decentral("explain", str(small), "--noise").out.split())
    assert f"which is {found['critical_nodes']:.0f} nodes of {found['batch_size']:g} each" in text
    assert "an estimate, right in its order of magnitude" in text
