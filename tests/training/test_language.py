"""Language models see what came before and nothing else, and their flat gradient is autograd's."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import softmax

from decentral import config
from decentral.training.batches import Batches
from decentral.training.language import CausalAttention
from decentral.training.models import build
from decentral.training.objective import Objective, flat
from decentral.training.text import next_character_loss

SECTIONS = {
    "gru": config.GRU(name="gru", width=8, layers=2),
    "gpt": config.GPT(name="gpt", width=8, heads=2, layers=2),
    "gpt with dropout": config.GPT(name="gpt", width=8, heads=2, dropout=0.5),
}


def made(name):
    return build(SECTIONS[name], (10,), 7, 0, torch.float64, Path())


def characters(*shape, seed=0):
    return torch.randint(7, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["gru", "gpt"])
def test_a_later_character_changes_nothing_before_it(name):
    model, text = made(name), characters(3, 10)
    before = model(text)
    text[:, 6] = (text[:, 6] + 1) % 7
    after = model(text)
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-12)
    assert ((after - before)[:, 6:].abs().amax(dim=(0, 2)) > 1e-9).all()  # and everything from it on


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    attention, x = CausalAttention(6, 2, 0.0).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    q, k, v = attention.inward(x).chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = q[..., head] @ k[..., head].transpose(1, 2) / 3**0.5
        hidden = torch.ones(5, 5).triu(1).bool()
        heads.append(softmax(scores.masked_fill(hidden, -torch.inf), dim=-1) @ v[..., head])
    torch.testing.assert_close(attention(x), attention.outward(torch.cat(heads, dim=-1)))


@pytest.mark.parametrize("name", SECTIONS)
def test_the_flat_gradient_is_that_of_the_module(name):
    model, twin = made(name), made(name)
    inputs, targets = characters(4, 10), characters(4, 10, seed=1)
    objective = Objective(model, next_character_loss, Batches(inputs, targets, 4, seed=3, node=1))
    loss, gradient = objective.gradient(flat(model))
    torch.manual_seed((objective.batches.integer_seed("forward") >> 1) + 0)
    expected = next_character_loss(twin(inputs), targets)
    expected.backward()
    assert loss == expected.detach()
    assert torch.equal(gradient, torch.cat([parameter.grad.flatten() for parameter in twin.parameters()]))


def test_dropout_is_for_training_alone():
    model, text = made("gpt with dropout"), characters(2, 10)
    assert not torch.equal(model(text), model(text))
    model.eval()
    assert torch.equal(model(text), model(text))


def test_first_weights_of_a_gpt_are_small_and_its_first_guess_is_even():
    model = build(config.GPT(name="gpt", width=64, layers=4), (32,), 50, 0, torch.float32, Path())
    model.requires_grad_(False)
    assert model.head.weight.std() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].attention.outward.weight.std() == pytest.approx(0.02 / 8**0.5, rel=0.05)
    text = torch.randint(50, (8, 33), generator=torch.Generator().manual_seed(0))
    loss = next_character_loss(model(text[:, :-1]), text[:, 1:])
    assert float(loss) == pytest.approx(float(torch.tensor(50.0).log()), rel=0.02)
