"""Compressors as error feedback uses them: gossip with a public copy of each model, and a residual that is kept.

CHOCO-Gossip (Koloskova et al. 2019, Algorithm 1) on a ring of 9, d = 400, as three vectors a node:

    q_i = C(x_i - h_i);    h_i += q_i;    s_i += sum_j w_ij q_j;    x_i += gamma (s_i - h_i)

Top-1 % converges at gamma = .04 and not at .16; random 1 % at .01 and not at .02 (a search over gamma found these).
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.compression import Key, Space, compressor_of

N, D = 9, 400
TOP: dict[str, Any] = {"name": "top-k", "fraction": 0.01}
RANDOM: dict[str, Any] = {"name": "random-k", "fraction": 0.01, "shared": False}


def starts() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((N, D)))


def choco(section: dict[str, Any], gamma: float, rounds: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, h and s, `(N, D)` each."""
    x, compressor = starts(), compressor_of(section, Space(D, torch.float64))
    h, s = torch.zeros_like(x), torch.zeros_like(x)
    messages = [compressor.message() for _ in range(N)]
    for round in range(rounds):
        for i in range(N):
            compressor.encode_difference(x[i], h[i], messages[i], Key(0, round, i))
        for i in range(N):
            row = {j % N: 1 / 3 for j in (i - 1, i, i + 1)}
            compressor.add(s[i], row, {j: messages[j] for j in row}, Key(0, round, i))
        x += gamma * (s - h)
    return x, h, s


def apart(x: Tensor) -> float:
    return float((x - x.mean(dim=0)).norm())


@pytest.mark.parametrize(("section", "good", "bad"), [(TOP, 0.04, 0.16), (RANDOM, 0.01, 0.02)])
def test_gossip_converges_where_it_should_and_nowhere_else(section: dict[str, Any], good: float, bad: float) -> None:
    before = apart(starts())
    assert apart(choco(section, good, 600)[0]) < 0.5 * before
    assert apart(choco(section, bad, 600)[0]) > before


@pytest.mark.parametrize("gamma", [0.04, 0.5])
@pytest.mark.parametrize("section", [TOP, RANDOM, {"name": "sign"}, {"name": "qsgd", "bits": 2, "unbiased": False}])
def test_the_mean_stays_and_sums_are_of_the_copies(section: dict[str, Any], gamma: float) -> None:
    """However compressed, and though it diverges: |mean| drifts by rounding of what is mixed, and of nothing else."""
    x, h, s = choco(section, gamma, 60)
    scale = max(1.0, float(x.abs().max()), float(h.abs().max()))
    assert (x.mean(dim=0) - starts().mean(dim=0)).abs().max() <= 1e-12 * scale
    ring = sum(torch.roll(torch.eye(N, dtype=torch.float64), shift, 0) for shift in (-1, 0, 1)) / 3
    assert (s - ring @ h).abs().max() <= 1e-12 * scale


def test_what_a_residual_keeps_is_sent_in_the_end() -> None:
    """EF14: what was sent of a constant vector, and what is left of it, are together all that was to be sent."""
    compressor = compressor_of(TOP, Space(D, torch.float64))
    gradient, left, sent = starts()[0], torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    message = compressor.message()
    for round in range(500):
        left += gradient
        compressor.encode_residual(left, message, Key(0, round, 0))
        compressor.add(sent, {0: 1.0}, {0: message}, Key(0, round, 0))
    torch.testing.assert_close(sent + left, 500 * gradient, rtol=1e-12, atol=1e-12)
    assert (sent / 500 - gradient).norm() < 0.25 * gradient.norm()
