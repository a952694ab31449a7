"""Muon with AdamW beside it: what torch's own two do apart, through a checkpoint too; and what is refused."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from decentral.algorithms.local import LocalOptimizer
from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.measure.prepared import own_method
from decentral.training.muon import Muon
from decentral.training.optimizer import local_optimizer
from tests.contract.problems import DIMENSION, LAYOUTS


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2, bias=False))


def train(net: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        net(torch.randn(8, 1, 4, 4, generator=generator)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        net.zero_grad()
    return [parameter.detach() for parameter in net.parameters()]


def test_it_is_muon_on_matrices_and_adamw_on_the_rest() -> None:
    together, apart = model(), model()
    matrices, others = ([p for p in apart.parameters() if (p.ndim == 2) is wanted] for wanted in (True, False))
    assert (len(matrices), len(others)) == (2, 3)
    own: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, 0.02, 0.3, momentum=0.8, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, 0.02, (0.9, 0.95), 1e-8, 0.3),
    ]
    found = train(together, [Muon(together.parameters(), lr=0.02, weight_decay=0.3, momentum=0.8)], 5)
    expected = train(apart, own, 5)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_it_goes_on_from_its_state() -> None:
    """load_state_dict replaces the groups and the state, which the two parts must step with from there on."""
    whole, resumed = model(), model()
    train(whole, [other := Muon(whole.parameters(), lr=0.01)], 3)
    saved = deepcopy({"model": whole.state_dict(), "optimizer": other.state_dict()})
    resumed.load_state_dict(saved["model"])
    optimizer = Muon(resumed.parameters(), lr=0.5)
    optimizer.load_state_dict(saved["optimizer"])
    assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"] == 0.01
    found, expected = train(resumed, [optimizer], 3, seed=3), train(whole, [other], 3, seed=3)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found no parameter that is a matrix.* take torch.optim.AdamW"):
        Muon([torch.zeros(3)])
    plain = LocalOptimizer(torch.optim.Muon, {"lr": 0.1})
    with pytest.raises(ConfigError, match=r"Muon only supports 2D.*decentral\.training\.muon\.Muon"):
        plain.bind(torch.zeros(DIMENSION), LAYOUTS["many blocks"])
    for name in ("torch.optim.Muon", "decentral.training.muon.Muon"):
        section = example_with(optimizer={"name": name, "lr": 0.1}).optimizer
        assert local_optimizer(section, 10).beyond_sgd() == "Muon"


def test_an_experiment_names_it(tmp_path: Path) -> None:
    """With a learning rate that falls, which both groups take."""
    optimizer = {"name": "decentral.training.muon.Muon", "lr": 0.01, "betas": [0.8, 0.9], "schedule": "cosine"}
    ready = own_method(example_with(optimizer=optimizer, model={"name": "mlp", "hidden": [8]}, data="digits"))
    bound = ready.local.bind(ready.task.start(), ready.task.layout)
    bound.begin_round(1)
    rates = {group["lr"] for group in bound.optimizer.param_groups}
    assert len(bound.optimizer.param_groups) == 2
    assert len(rates) == 1
    assert rates != {0.01}
