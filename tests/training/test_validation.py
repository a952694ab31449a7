"""Samples that are set aside come from the training samples alone, once each, and the seed says which."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from decentral.errors import ConfigError
from decentral.training.data import Data
from decentral.training.validation import set_aside


def numbered(samples: int = 10) -> Data:
    """Training samples 0, 1, ...; test samples are negative, so that none of them can pass for one."""
    inputs, targets = torch.arange(samples).float().view(-1, 1), torch.arange(samples)
    tests = -1 - torch.arange(5)
    return Data(inputs, targets, tests.float().view(-1, 1), tests, cross_entropy, samples, origins=10 * targets)


def test_each_training_sample_is_left_or_set_aside_and_no_test_sample_is_seen() -> None:
    cut = set_aside(numbered(), 0.25, seed=3, at=("data",))
    assert (len(cut.train_targets), len(cut.test_targets)) == (8, 2)
    assert sorted([*cut.train_targets.tolist(), *cut.test_targets.tolist()]) == list(range(10))
    assert cut.train_inputs.flatten().tolist() == cut.train_targets.tolist()
    assert cut.test_inputs.flatten().tolist() == cut.test_targets.tolist()
    assert cut.origins is not None
    assert cut.origins.tolist() == [10 * target for target in cut.train_targets.tolist()]


def test_the_seed_draws_them() -> None:
    drawn = [set_aside(numbered(100), 0.2, seed, ("data",)).test_targets.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_cannot_be_set_aside_is_told() -> None:
    dealt = replace(numbered(), shards=(torch.arange(5), torch.arange(5, 10)))
    with pytest.raises(ConfigError, match="comes dealt to nodes"):
        set_aside(dealt, 0.2, 0, ("data",))
    with pytest.raises(ConfigError, match="2 of 2 training samples"):
        set_aside(numbered(2), 0.9, 0, ("data",))
