"""The estimate of the critical batch and delay, where it is known: on least squares."""

import numpy as np
import pytest
import torch

from decentral.measure.noise import PROBED, probe
from decentral.training.data import Data, half_mean_squared_error
from decentral.training.task import Task


def least_squares(inputs: torch.Tensor, nodes: int, seed: int = 0) -> Task:
    """f = 1/2 E (a^T x - y)^2 at x = 0 with y = a^T e, of features `(N, d)`."""
    e = torch.ones(inputs.shape[1], dtype=torch.float64)
    targets = (inputs @ e)[:, None]
    module = torch.nn.Linear(inputs.shape[1], 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(module.weight)
    data = Data(inputs, targets, inputs, targets, half_mean_squared_error, None)
    return Task(data, torch.arange(len(inputs)).chunk(nodes), module, 1, seed)


@pytest.mark.parametrize("dimension", [4, 32])
def test_of_orthogonal_features_it_is_how_many_there_are_less_one(dimension: int) -> None:
    """max |a|^2 / L - 1 with L = 1/d: the example in which the bound is attained."""
    found = probe(least_squares(torch.eye(dimension, dtype=torch.float64), nodes=4))
    assert found.samples == dimension
    assert found.ratio == pytest.approx(dimension - 1)
    assert found.critical(2) == pytest.approx(max((dimension - 1) / 2, 1.0))


@pytest.mark.parametrize("nodes", [1, 8])
def test_of_a_sample_of_gaussian_features_it_is_near_that_of_all(nodes: int) -> None:
    """E|g|^2 / |grad f|^2 - 1 = d + 1 for standard normal features."""
    dimension = 12
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, dimension)))
    ratios = []
    for seed in range(4):
        found = probe(least_squares(inputs, nodes, seed))
        assert found.samples == PROBED
        assert found.ratio is not None
        ratios.append(found.ratio)
    assert np.mean(ratios) == pytest.approx(dimension + 1, rel=0.2)


def test_more_noise_than_such_a_probe_can_tell_is_said_to_be_so() -> None:
    """At the optimum of noisy labels there is nothing but noise."""
    inputs = torch.ones(4000, 1, dtype=torch.float64)
    task = least_squares(inputs, nodes=4)
    task.data.train_targets.copy_(torch.tensor([1.0, -1.0]).repeat(2000)[:, None])
    found = probe(task)
    assert found.ratio is None or found.ratio > PROBED / 4
    assert probe(least_squares(inputs, nodes=4)).ratio == pytest.approx(0.0)
