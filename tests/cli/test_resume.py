"""`--resume`, signals and `export`, in this process."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from decentral.measure.record import claimed
from tests.cli.conftest import Command

SIGNALED = '''
import os, signal
from dataclasses import dataclass
from decentral.algorithms.dsgd import DSGD

@dataclass(frozen=True, kw_only=True)
class Signaled(DSGD):
    """Sends this process the signal SIGNAL in the round ROUND of node NODE."""

    async def step(self, state, peer):
        if peer.round == int(os.environ.get("ROUND", -1)) and peer.node == int(os.environ.get("NODE", 1)):
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
        return await super().step(state, peer)
'''
OWN = ("-s", "algorithm=signaled:Signaled")


@pytest.fixture
def signaled(small: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """`signaled("SIGTERM", 7)`: from now on, round 7 sends that signal to this process."""
    (small.parent / "signaled.py").write_text(SIGNALED)
    monkeypatch.delitem(sys.modules, "signaled", raising=False)

    def arm(name: str, round: int) -> None:
        monkeypatch.setenv("SIGNAL", name)
        monkeypatch.setenv("ROUND", str(round))

    return arm


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def final(run: Path) -> list[bytes]:
    return [(run / "models" / f"node-{node}.safetensors").read_bytes() for node in range(4)]


def test_sigterm_ends_a_run_with_143_after_a_checkpoint_and_says_how_to_go_on(
    decentral: Command, small: Path, signaled: Callable[[str, int], None]
) -> None:
    """Twice: an interrupted run that was resumed may be interrupted again."""
    decentral("simulate", str(small), *OWN, "--out", "whole")
    handler = signal.getsignal(signal.SIGTERM)
    signaled("SIGTERM", 5)
    first = decentral("simulate", str(small), *OWN, "--out", "run", "--json")
    assert first.code == 143
    assert first.json["exit_code"] == 143
    assert f"go on with `decentral simulate {small} -s algorithm=signaled:Signaled --resume run`" in first.err
    assert "the checkpoint of round 6 is whole" in first.err
    assert signal.getsignal(signal.SIGTERM) is handler
    signaled("SIGTERM", 9)
    assert decentral("simulate", str(small), *OWN, "--resume", "run").code == 143
    assert checkpoints(small.parent / "run") == ["round-00000006", "round-00000010"]
    signaled("SIGTERM", -1)
    assert decentral("simulate", str(small), *OWN, "--resume", "run").code == 0
    assert final(small.parent / "run") == final(small.parent / "whole")


def test_sigusr1_makes_a_checkpoint_and_the_run_goes_on(
    decentral: Command, small: Path, signaled: Callable[[str, int], None]
) -> None:
    signaled("SIGUSR1", 6)
    assert decentral("simulate", str(small), *OWN, "--out", "run").code == 0
    assert checkpoints(small.parent / "run") == ["round-00000007"]


def test_sigterm_in_the_last_round_lets_the_run_end(
    decentral: Command, small: Path, signaled: Callable[[str, int], None]
) -> None:
    signaled("SIGTERM", 11)
    assert decentral("simulate", str(small), *OWN, "--out", "run").code == 0
    assert (small.parent / "run" / "comparison.json").exists()


CHECKPOINTED = ("-s", "checkpoint={every: 5, keep: 2}")


def test_what_resume_refuses_in_one_line(decentral: Command, small: Path) -> None:
    decentral("simulate", str(small), *CHECKPOINTED, "--out", "run")
    decentral("simulate", str(small), "--out", "bare")

    def refused(*arguments: str, verb: str = "simulate") -> str:
        result = decentral(verb, str(small), *arguments)
        assert result.code == 2
        return result.line

    for verb in ("simulate", "train"):
        assert "no such run folder" in refused("--resume", "nowhere", verb=verb)
        assert "no whole checkpoint" in refused("--resume", "bare", verb=verb)
        assert "whole ones: round-10, round-12" in refused("--resume", "run", "--from", "round-3", verb=verb)
        assert "leave --out away" in refused("--resume", "run", "--out", "other", verb=verb)
        assert "--from round-3 without --resume" in refused("--from", "round-3", verb=verb)
        changed = refused("--resume", "run", "-s", "optimizer.lr=0.3", verb=verb)
        assert changed.startswith("-s optimizer.lr=0.3: optimizer.lr: found 0.3; the checkpoint has 0.2")
    assert "neither checkpointed nor resumed" in refused(*CHECKPOINTED, "-s", "algorithm=ddp", verb="train")
    damaged = small.parent / "run" / "checkpoints" / "round-00000012" / "node-3.json"
    damaged.write_text("{}")
    for verb in ("simulate", "train"):
        line = refused("--resume", "run", verb=verb)
        assert "round-00000012/node-3.json: torn or changed: sha256 44136fa3" in line
        assert "--from round-10 goes on from there" in line


def test_a_run_that_is_under_way_is_not_resumed_by_a_second_command(decentral: Command, small: Path) -> None:
    decentral("simulate", str(small), *CHECKPOINTED, "--out", "run")
    with claimed(small.parent / "run"):
        second = decentral("simulate", str(small), "--resume", "run")
    assert second.code == 2
    assert "another command runs in run" in second.line
    assert decentral("simulate", str(small), "--resume", "run").code == 0


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, str] = file.metadata()
    return found


def test_export_of_a_finished_run_and_of_a_checkpoint(decentral: Command, small: Path) -> None:
    decentral("simulate", str(small), *CHECKPOINTED, "--out", "run")
    run = small.parent / "run"
    models = [load_file(run / "models" / f"node-{node}.safetensors") for node in range(4)]
    document = decentral("export", "run", "--json").json
    assert (document["file"], document["round"], document["model"]) == ("model.safetensors", "12", "average")
    mean = load_file(small.parent / "model.safetensors")
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, torch.stack([model[name] for model in models]).mean(0))
    decentral("export", "run", "--model", "node=2", "-o", "two.safetensors")
    two = load_file(small.parent / "two.safetensors")
    assert all(torch.equal(two[name], models[2][name]) for name in models[2])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    accuracies = last["node_accuracy"]
    best = decentral("export", "run", "--model", "best", "-o", "best.safetensors", "--json").json
    assert best["node"] == str(accuracies.index(max(accuracies)))
    decentral("export", "run", "--model", "node=2", "--from", "round-12", "-o", "saved.safetensors")
    saved = load_file(small.parent / "saved.safetensors")
    assert saved.keys() == two.keys()
    assert all(torch.equal(saved[name], two[name]) for name in two)
    about = {"format": "pt", "experiment": "small", "round": "12", "model": "node=2", "nodes": "4", "node": "2"}
    assert metadata(small.parent / "saved.safetensors") == about
    decentral("export", "run", "--model", "node=2", "--from", "round-10", "-o", "saved.safetensors")
    assert metadata(small.parent / "saved.safetensors")["round"] == "10"
    assert not torch.equal(load_file(small.parent / "saved.safetensors")["1.weight"], two["1.weight"])


def test_export_loads_into_the_module_that_was_trained(
    decentral: Command, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small.parent / "normed_model.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))\n"
    )
    decentral("simulate", str(small), *CHECKPOINTED, "-s", "model=normed_model:build", "--out", "run")
    decentral("export", "run")
    monkeypatch.syspath_prepend(str(small.parent))
    import normed_model  # type: ignore[import-not-found]

    module: Any = normed_model.build()
    module.load_state_dict(load_file(small.parent / "model.safetensors"))
    assert int(module[2].num_batches_tracked) == 12
    (small.parent / "model.safetensors").rename(small.parent / "finished.safetensors")
    for path in (small.parent / "run" / "models").iterdir():
        path.unlink()
    assert decentral("export", "run").code == 0  # from the newest checkpoint, which is of the last round
    one, other = (load_file(small.parent / name) for name in ("model.safetensors", "finished.safetensors"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_what_export_refuses_in_one_line(decentral: Command, small: Path) -> None:
    decentral("simulate", str(small), "--out", "run")
    for model in ("node=4", "node=-1", "node=two", "worst"):
        result = decentral("export", "run", "--model", model)
        assert (result.code, "average, best, or node=0 to node=3" in result.line) == (2, True)
    (small.parent / "run" / "models" / "node-3.safetensors").unlink()
    assert "node-3.safetensors: cannot be read" in decentral("export", "run").line
    assert "no whole checkpoint" in decentral("export", "nowhere").line
    assert not os.path.exists(small.parent / "model.safetensors")
