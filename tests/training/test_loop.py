"""Losses are looked at in the order of rounds: at once in main memory, later where a GPU would be waited for."""

import pytest
import torch

from decentral.errors import DivergedError
from decentral.training.loop import Unchecked

FINE, NAN = {0: torch.tensor(1.0), 1: torch.tensor(2.0)}, {0: torch.tensor(1.0), 1: torch.tensor(torch.nan)}


def test_a_loss_in_main_memory_is_checked_in_its_round() -> None:
    unchecked = Unchecked(on_gpu=False)
    unchecked.add(0, FINE)
    with pytest.raises(DivergedError, match="node 1 diverged in round 1"):
        unchecked.add(1, NAN)


def test_losses_on_a_gpu_are_checked_when_asked_for_and_the_first_is_named() -> None:
    unchecked = Unchecked(on_gpu=True)
    for round, losses in enumerate([FINE, NAN, FINE, NAN]):
        unchecked.add(round, losses)
    with pytest.raises(DivergedError, match="node 1 diverged in round 1"):
        unchecked.check()
    again = Unchecked(on_gpu=True)
    again.add(0, FINE)
    again.check()
    again.check()
