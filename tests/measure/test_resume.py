"""A run that was stopped and resumed equals, bit for bit, the one that never was: simulated, on ranks, and across."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from decentral.algorithms import ALGORITHMS, CONTROLLERS, TOKEN_METHODS
from decentral.config import Experiment
from decentral.errors import ConfigError
from decentral.loading import load
from decentral.measure.comparison import Evaluation
from decentral.measure.prepared import own_method
from decentral.measure.resume import Origin, checked, chosen, keeping
from decentral.measure.speedup import run_alone, simulate_alone
from decentral.transport.world import World
from tests.contract.ranks import on_ranks

NODES = 3

TREE: dict[str, Any] = {
    "name": "resumed",
    "nodes": NODES,
    "rounds": 14,
    "batch_size": 16,
    "evaluate_every": 4,
    "data": "digits",
    "partition": {"name": "dirichlet", "alpha": 1.0},
    "model": {"name": "mlp", "hidden": [8]},
    "optimizer": {"lr": 0.1, "momentum": 0.9},
    "topology": "ring",
    "algorithm": "dsgd",
    "checkpoint": {"every": 5},
}

USERS_CODE = '''
from dataclasses import dataclass, field
import torch
from torch import nn
from decentral.algorithms.algorithm import Algorithm, State

def dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Dropout(0.5), nn.Linear(12, 10))

def normed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))

@dataclass(slots=True)
class Memory:
    last: torch.Tensor
    seen: dict = field(default_factory=dict)

@dataclass(slots=True)
class OwnState(State):
    memory: Memory
    random: torch.Generator
    steps: int = 0

@dataclass(frozen=True, kw_only=True)
class Remembering(Algorithm):
    """Momentum of its own, noise of its own, what it heard from each neighbor, and a counter."""

    def init(self, x, peer):
        local = self.local.bind(x, peer.layout)
        return OwnState(x, local, Memory(torch.zeros_like(x)), peer.generator("noise"))

    async def step(self, state, peer):
        loss, gradient = await peer.gradient(state.x)
        noise = torch.randn(len(state.x), generator=state.random, dtype=state.x.dtype)
        state.memory.last = 0.5 * state.memory.last + gradient + 1e-3 * noise
        state.steps += 1
        state.local.step(state.memory.last / state.steps**0.5)
        heard = await peer.exchange((state.x,))
        for node, (theirs,) in heard.items():
            before = state.memory.seen.get(node, state.x)
            state.memory.seen[node] = theirs.clone()
            state.x.add_(before - state.x, alpha=0.2)
        return loss
'''

COSINE = {"lr": 0.1, "schedule": {"name": "cosine", "rounds": 13, "warmup": 3}}
PAIRS = {"name": "random-matchings", "seed": 1}
DROP = {"lr": 0.05, "weight_decay": 0.01, "schedule": {"name": "step", "at": [8, 12]}}

CONTROLLED = {"name": "consensus-control", "of": "qg-dsgdm", "target": 0.2, "relative": True}
COLUMNS = {"name": "star", "weights": "column-stochastic"}
APART = {"name": "double_binary_trees", "apart": True}

VARIATIONS: dict[str, dict[str, Any]] = {
    "adapt-then-combine": {"algorithm": {"name": "dsgd", "order": "adapt-then-combine"}},
    "combine-then-adapt": {"algorithm": {"name": "dsgd", "order": "combine-then-adapt"}},
    "adapt-while-communicate": {"algorithm": {"name": "dsgd", "order": "adapt-while-communicate"}},
    "every third round": {"algorithm": {"name": "dsgd", "every": 3}},
    "allreduce": {"algorithm": "allreduce"},
    "own algorithm": {"algorithm": "resumed_code:Remembering"},
    "tracking": {"algorithm": {"name": "gradient-tracking", "order": "adapt-while-communicate"}, "optimizer": COSINE},
    "tracking, mixed": {"algorithm": "gradient-tracking"},
    "tracking, atc": {"algorithm": {"name": "gradient-tracking", "order": "adapt-then-combine"}},
    "d2": {"algorithm": "d2", "optimizer": {**COSINE, "momentum": 0.5}},
    "exact diffusion": {"algorithm": "exact-diffusion", "optimizer": {**DROP, "momentum": 0.5}},
    "qg-dsgdm": {"algorithm": "qg-dsgdm", "optimizer": DROP},
    "qg-dadam": {"algorithm": "qg-dadam", "optimizer": {"lr": 0.01}},
    "decentlam": {"algorithm": "decentlam", "optimizer": DROP},
    "slowmo": {"algorithm": {"name": "slowmo", "every": 4}, "optimizer": {**COSINE, "momentum": 0.5}},
    "momentum tracking": {"algorithm": {"name": "momentum-tracking", "momentum": 0.5}, "optimizer": DROP},
    "gut": {"algorithm": "gut", "optimizer": DROP},
    "consensus control": {"algorithm": CONTROLLED, "optimizer": DROP},
    "gasloc": {"algorithm": {"name": "gasloc", "every": 4}, "optimizer": {**COSINE, "momentum": 0.5}},
    "noloco": {"algorithm": {"name": "noloco", "every": 4}, "topology": {"name": "complete", "schedule": PAIRS}},
    "sparta": {"algorithm": {"name": "sparta", "fraction": 0.1, "order": "adapt-while-communicate"}},
    "sparseloco": {
        "algorithm": {"name": "sparseloco", "every": 4, "compression": "top-k", "consensus_step": 0.2},
        "topology": {"name": "complete", "schedule": PAIRS},
    },
    "epidemic": {"algorithm": "epidemic", "topology": {"name": "epidemic", "recipients": 1, "balanced": False}},
    "diloco": {"algorithm": {"name": "diloco", "every": 4}},
    "fedavg": {"algorithm": {"name": "fedavg", "every": 4}},
    "power gossip": {"algorithm": {"name": "power-gossip", "rank": 2}},
    "lead": {"algorithm": "lead", "optimizer": DROP},
    "motef": {"algorithm": {"name": "motef", "compression": {"name": "low-rank"}, "consensus_step": 0.2}},
    "deepsqueeze": {"algorithm": {"name": "deepsqueeze", "compression": "sign", "consensus_step": 0.2}},
    "ecd": {"algorithm": {"name": "ecd", "compression": "int8"}},
    "ef14": {"algorithm": {"name": "ef14", "compression": {"name": "random-k", "shared": False}}, "optimizer": COSINE},
    "ef21-sgdm": {"algorithm": {"name": "ef21-sgdm", "double": True, "compression": "low-rank"}},
    "econtrol": {"algorithm": "econtrol", "optimizer": DROP},
    "ec-sgd-diana": {"algorithm": "ec-sgd-diana", "optimizer": DROP},
    "sgp": {"algorithm": "sgp", "topology": COLUMNS, "optimizer": {**DROP, "momentum": 0.5}},
    "sgp, overlapped": {"algorithm": {"name": "sgp", "delay": 2}, "topology": COLUMNS},
    "relay-sgd": {"algorithm": "relay-sgd", "topology": "tree", "optimizer": {**COSINE, "momentum": 0.5}},
    "relay-sgd, updates": {"algorithm": {"name": "relay-sgd", "form": "updates"}, "topology": "tree"},
    "relay-sgd, two trees": {"algorithm": {"name": "relay-sgd", "form": "start", "trees": 2}, "topology": APART},
    "adam": {"optimizer": {"name": "torch.optim.Adam", "lr": 0.01}},
    "adamw": {"optimizer": {"name": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1}},
    "choco": {"algorithm": {"name": "choco", "every": 3, "compression": "top-k", "consensus_step": 0.2}},
    "beer": {"algorithm": {"name": "beer", "compression": "top-k", "consensus_step": 0.2}},
    "dcd": {"algorithm": {"name": "dcd", "compression": "int8"}},
    "hierarchical": {"algorithm": {"name": "hierarchical", "group": 1, "every": 2}},
    "ef21": {"algorithm": {"name": "ef21", "compression": "top-k"}},
    "dqsgd": {"algorithm": "dqsgd", "optimizer": DROP},
    "diana": {"algorithm": "diana", "optimizer": DROP},
    "mcgd": {"algorithm": {"name": "mcgd", "step_by": "adam", "tokens": 2}, "optimizer": DROP},
    "sa-srrw": {"algorithm": {"name": "sa-srrw", "visits": 3, "tokens": 2, "meeting": "average"}, "optimizer": DROP},
    "walkman": {"algorithm": "walkman", "optimizer": DROP},
    "token gossip": {"algorithm": {"name": "token-gossip", "tokens": 2}, "optimizer": COSINE},
    "token exchange": {"algorithm": {"name": "token-exchange", "tokens": 2}, "optimizer": DROP},
    "delayed": {"algorithm": {"name": "delayed-dsgd", "delay": 3}, "optimizer": COSINE},
    "muloco": {
        "algorithm": {"name": "diloco", "every": 4},
        "optimizer": {"name": "decentral.training.muon.Muon", "lr": 0.01},
    },
    "rmsprop": {"optimizer": {"name": "torch.optim.RMSprop", "lr": 0.01, "momentum": 0.5}},
    "nadam": {"optimizer": {"name": "torch.optim.NAdam", "lr": 0.01}},
    "dropout": {"model": "resumed_code:dropout"},
    "batch norm": {"model": "resumed_code:normed"},
    "float64": {"dtype": "float64"},
    "quadratics": {
        "data": "quadratics",
        "partition": None,
        "model": {"name": "linear", "bias": False},
        "dtype": "float64",
    },
}
FEW = ["tracking", "adapt-while-communicate", "allreduce", "own algorithm", "ef21-sgdm", "adamw", "batch norm"]
"""Not dropout: ranks that are threads draw from one generator. It is held to the same on real processes."""


def silent(name: str, row: Evaluation) -> None:
    pass


class Place:
    """A folder with an experiment file and its runs."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        (folder / "resumed_code.py").write_text(USERS_CODE)
        self.changes = changes

    def experiment(self, **more: Any) -> Experiment:
        path = self.folder / "experiment.yaml"
        path.write_text(yaml.safe_dump(TREE | self.changes | more))
        return load(path).experiment

    def simulate(self, name: str, *, resume: str | None = None, **more: Any) -> Path:
        experiment, run = self.experiment(**more), self.folder / name
        run.mkdir(exist_ok=True)
        ready = own_method(experiment)
        origin = chosen(Origin(run, resume or None)) if resume is not None else None
        simulate_alone(ready, experiment, run, "decentral simulate experiment.yaml", silent, origin)
        return run

    def on_ranks(self, name: str, *, resume: str | None = None, **more: Any) -> Path:
        experiment, run = self.experiment(**more), self.folder / name
        run.mkdir(exist_ok=True)
        origin = chosen(Origin(run, resume or None)) if resume is not None else None

        def work(world: World) -> None:
            run_alone(world, experiment, run, "decentral train experiment.yaml", silent, origin)

        on_ranks(NODES, work, 60.0)
        return run


def test_every_method_is_stopped_and_resumed() -> None:
    sections = [variation.get("algorithm", "dsgd") for variation in VARIATIONS.values()]
    named = {section if isinstance(section, str) else section["name"] for section in sections}
    assert {*ALGORITHMS, *TOKEN_METHODS, *CONTROLLERS} <= named


def test_ranks_without_a_common_disk_each_keep_their_own(tmp_path: Path) -> None:
    """As on several machines: every rank has a run folder of its own, and the whole manifest in it."""
    place = Place(tmp_path, **VARIATIONS["own algorithm"])
    whole = place.on_ranks("whole")

    def ranks(rounds: int, wanted: str | None) -> None:
        experiment = place.experiment(rounds=rounds)

        def work(world: World) -> None:
            run = tmp_path / f"disk-{world.rank}"
            run.mkdir(exist_ok=True)
            run_alone(world, experiment, run, "", silent, Origin(run, wanted) if wanted else None)

        on_ranks(NODES, work, 60.0)

    ranks(10, None)
    for rank in range(NODES):
        files = {path.name for path in (tmp_path / f"disk-{rank}" / "checkpoints" / "round-00000010").iterdir()}
        own = {f"node-{rank}.safetensors", f"node-{rank}.json", "manifest.json"}
        assert files == own | ({"metrics.jsonl"} if rank == 0 else set())
    ranks(14, "round-10")
    for rank, model in enumerate(models(whole)):
        assert (tmp_path / f"disk-{rank}" / "models" / f"node-{rank}.safetensors").read_bytes() == model
    assert metrics(tmp_path / "disk-0") == metrics(whole)


def models(run: Path) -> list[bytes]:
    return [(run / "models" / f"node-{node}.safetensors").read_bytes() for node in range(NODES)]


def metrics(run: Path) -> list[dict[str, Any]]:
    """But for the seconds."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same(one: Path, other: Path) -> None:
    assert models(one) == models(other)
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize("variation", VARIATIONS.values(), ids=VARIATIONS)
def test_a_simulated_run_goes_on_with_the_same_bits(variation: dict[str, Any], tmp_path: Path) -> None:
    """Stopped after 12 rounds, whose evaluation at the end the longer run does not have, resumed from round 10."""
    place = Place(tmp_path, **variation)
    whole = place.simulate("whole", checkpoint={})
    stopped = place.simulate("stopped", rounds=10)
    assert models(whole) != models(stopped)
    place.simulate("stopped", resume="", rounds=10)  # nothing is left to do, and nothing is harmed
    assert_same(whole, place.simulate("stopped", resume=""))
    assert json.loads((stopped / "resumed.jsonl").read_text().splitlines()[-1])["from_round"] == 10


@pytest.mark.parametrize("name", FEW)
def test_real_ranks_go_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path, **VARIATIONS[name])
    whole = place.on_ranks("whole")
    stopped = place.on_ranks("stopped", rounds=5)
    assert_same(whole, place.on_ranks("stopped", resume=""))
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == [
        "round-00000005", "round-00000010", "round-00000014",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FEW if name != "allreduce"])
def test_a_run_moves_between_ranks_and_the_simulator(name: str, tmp_path: Path) -> None:
    """The engine orders the sum of an all-reduce, so that baseline alone is not bitwise across transports."""
    place = Place(tmp_path, **VARIATIONS[name])
    whole = models(place.simulate("whole"))
    place.on_ranks("moved", rounds=5)
    place.simulate("moved", resume="", rounds=10)
    assert models(place.on_ranks("moved", resume="")) == whole
    clocks = [json.loads((tmp_path / run / "comparison.json").read_text())["clock"] for run in ("whole", "moved")]
    assert clocks == ["none", "none"]  # a third of its seconds is of a simulator


def test_batch_norm_statistics_come_back(tmp_path: Path) -> None:
    place = Place(tmp_path, **VARIATIONS["batch norm"])
    place.simulate("run", rounds=10)
    run = place.simulate("run", resume="")
    saved = load_file(run / "models" / "node-1.safetensors")
    assert saved["2.num_batches_tracked"] == 14


def test_an_older_checkpoint_is_gone_on_from_and_later_ones_go(tmp_path: Path) -> None:
    place = Place(tmp_path)
    whole = place.simulate("whole")
    place.simulate("run")
    run = place.simulate("run", resume="round-5", rounds=9)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["round-00000005", "round-00000009"]
    assert_same(whole, place.simulate("run", resume=""))


@pytest.mark.parametrize(
    ("change", "told", "at"),
    [
        ({"optimizer": {"lr": 0.2, "momentum": 0.9}}, "found 0.2; the checkpoint has 0.1", ("optimizer", "lr")),
        ({"optimizer": {"lr": 0.1}}, "found nothing; the checkpoint has 0.9", ("optimizer", "momentum")),
        ({"model": {"name": "mlp", "hidden": [9]}}, "[9]", ("model", "hidden")),
        ({"seeds": [1]}, "found first seed 1; the checkpoint has 0", ("seeds", 0)),
        ({"batch_size": 8}, "found 8", ("batch_size",)),
        ({"algorithm": "allreduce"}, '"allreduce"', ("algorithm", "name")),
        ({"rounds": 4}, "found 4; the checkpoint is of round 14", ("rounds",)),
        ({"algorithm": "ddp"}, "neither checkpointed nor resumed", ("checkpoint",)),
    ],
)
def test_another_experiment_is_refused_with_its_key(
    change: dict[str, Any], told: str, at: Sequence[str | int], tmp_path: Path
) -> None:
    place = Place(tmp_path)
    run = place.simulate("run")
    experiment = place.experiment(**change)
    ready, origin = own_method(experiment), Origin(run)

    def resume() -> None:
        keeping(run, experiment, ready, "none", "", origin)
        checked(origin, experiment, ready, range(NODES))

    with pytest.raises(ConfigError) as refused:
        resume()
    assert told in str(refused.value)
    assert refused.value.at == at


def test_a_rate_that_has_fallen_by_the_last_round_cannot_go_on_for_more(tmp_path: Path) -> None:
    place = Place(tmp_path, optimizer={"lr": 0.1, "schedule": "cosine"})
    place.simulate("run", rounds=5)
    with pytest.raises(ConfigError, match=r"found 9; the checkpoint has 5, by whose end its learning rate has fallen"):
        place.simulate("run", resume="", rounds=9)
    place.simulate("run", resume="", rounds=5)


def test_transport_names_and_rivals_may_change(tmp_path: Path) -> None:
    place = Place(tmp_path)
    whole = place.simulate("whole")
    place.simulate("run", rounds=5)
    free = {"transport": {"timeout_s": 7}, "baselines": [], "checkpoint": {"every": 3, "keep": 1}}
    assert_same(whole, place.simulate("run", resume="", **free))


def test_other_samples_are_refused(tmp_path: Path) -> None:
    code = (
        "import torch\ndef load():\n    x, y = torch.full((40, 4), {}), torch.arange(40) % 2\n    return x, y, x, y\n"
    )
    (tmp_path / "changing_data.py").write_text(code.format("1.0"))
    place = Place(tmp_path, data="changing_data:load", model="linear")
    place.simulate("run", rounds=5)
    del sys.modules["changing_data"]
    (tmp_path / "changing_data.py").write_text(code.format("22.0"))
    experiment = place.experiment()
    ready = own_method(experiment)
    with pytest.raises(ConfigError, match="not those that the checkpoint was trained on"):
        checked(Origin(tmp_path / "run"), experiment, ready, range(NODES))


def test_what_no_checkpoint_can_hold_is_told_before_the_first_round(tmp_path: Path) -> None:
    (tmp_path / "loose_code.py").write_text(
        "from dataclasses import dataclass\nfrom decentral.algorithms.algorithm import Algorithm, State\n"
        "@dataclass(slots=True)\nclass S(State):\n    seen: set\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Loose(Algorithm):\n"
        "    def init(self, x, peer):\n        return S(x, self.local.bind(x, peer.layout), {1})\n"
        "    async def step(self, state, peer):\n        loss, _ = await peer.gradient(state.x)\n        return loss\n"
    )
    place = Place(tmp_path, algorithm="loose_code:Loose")
    with pytest.raises(ConfigError, match=r"state\.seen, of type set"):
        place.simulate("refused")
    place.simulate("never checkpointed", checkpoint={})
