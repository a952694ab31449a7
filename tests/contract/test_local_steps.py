"""Local steps that are taken without torch's optimizer around them, against those that are taken with it."""

from typing import Any

import pytest
import torch

from decentral.algorithms.local import LocalOptimizer
from decentral.peer import Block

LAYOUT = (Block("a", (3, 5), 0), Block("b", (7,), 15), Block("c", (33,), 22))
D = 55


def warmed_up(round: int) -> float:
    return (round + 1) / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.3}, {"momentum": 0.0, "foreach": False}], ids=str)
def test_bare_sgd_takes_the_steps_of_torch_to_the_bit(options: dict[str, Any], dtype: torch.dtype) -> None:
    local = LocalOptimizer(torch.optim.SGD, {"lr": 0.1, **options}, warmed_up)
    assert local.is_bare_sgd
    random = torch.Generator().manual_seed(1)
    x = torch.randn(D, generator=random).to(dtype)
    parameters = [torch.nn.Parameter(block.of(x).clone()) for block in LAYOUT]
    optimizer, bound = torch.optim.SGD(parameters, lr=0.1, **options), local.bind(x, LAYOUT)
    given = torch.empty_like(x)
    for round in range(6):
        gradient = torch.randn(D, generator=random).to(dtype)
        bound.begin_round(round)
        bound.step(gradient if round % 2 else given.copy_(gradient))  # the same tensor again, and others
        optimizer.param_groups[0]["lr"] = 0.1 * warmed_up(round)
        for parameter, block in zip(parameters, LAYOUT, strict=True):
            parameter.grad = block.of(gradient)
        optimizer.step()
        assert torch.equal(x, torch.cat([parameter.detach().flatten() for parameter in parameters]))
        if round == 3:  # as mixing does
            x.set_(x.clone())  # type: ignore[call-overload]


@pytest.mark.parametrize("option", ["momentum", "maximize", "fused"])
def test_other_sgd_is_left_to_torch(option: str) -> None:
    assert not LocalOptimizer(torch.optim.SGD, {"lr": 0.1, option: 0.5 if option == "momentum" else True}).is_bare_sgd
    assert not LocalOptimizer(lambda *given: torch.optim.SGD(*given, lr=0.1), {"lr": 0.1}).is_bare_sgd
