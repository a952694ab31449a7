"""The module as a function of one flat vector."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from decentral.training.batches import Batches
from decentral.training.objective import Objective, flat

SAMPLES, FEATURES, CLASSES = 40, 6, 3


def module(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, CLASSES))


def batches(node: int) -> Batches:
    draw = torch.Generator().manual_seed(7)
    inputs = torch.randn(SAMPLES, FEATURES, generator=draw)
    return Batches(inputs, torch.randint(CLASSES, (SAMPLES,), generator=draw), batch_size=8, seed=0, node=node)


def objective(node: int = 0, dropout: float = 0.0) -> Objective:
    return Objective(module(dropout), cross_entropy, batches(node))


def test_the_gradient_is_autograds() -> None:
    ours, plain, taken = objective(), module(), batches(0)
    at = flat(ours.module)
    for _ in range(3):
        ours.begin_step()
        loss, gradient = ours.gradient(at)
        plain.zero_grad()
        inputs, targets = taken.next()
        expected = cross_entropy(plain(inputs), targets)
        expected.backward()
        assert torch.equal(loss, expected)
        assert torch.equal(gradient, torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None]))


def test_frozen_and_unused_parameters() -> None:
    """A frozen parameter is not in the vector; one that the loss does not use has gradient zero."""

    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(FEATURES, CLASSES), nn.Parameter(torch.ones(4))
            self.used.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    ours = Objective(Partial(), cross_entropy, batches(0))
    assert [block.name for block in ours.layout] == ["unused", "used.weight"]
    _, gradient = ours.gradient(flat(ours.module))
    assert torch.equal(gradient[:4], torch.zeros(4))
    assert gradient[4:].abs().sum() > 0


def test_two_gradients_of_one_step_do_not_share_memory() -> None:
    ours = objective()
    at = flat(ours.module)
    first = ours.gradient(at).gradient
    kept = first.clone()
    second = ours.gradient(at + 1).gradient
    assert torch.equal(first, kept)
    assert first.data_ptr() != second.data_ptr()


def test_dropout_depends_on_node_and_batch_alone() -> None:
    """Nodes of a simulator share torch's generator, real processes do not; both must drop the same units."""
    alone, neighbor, crowded = objective(0, dropout=0.5), objective(1, dropout=0.5), objective(0, dropout=0.5)
    at = flat(alone.module)
    for _ in range(4):
        for each in (alone, neighbor, crowded):
            each.begin_step()
        expected = alone.gradient(at).gradient
        other = neighbor.gradient(at).gradient
        assert torch.equal(crowded.gradient(at).gradient, expected)
        assert not torch.equal(other, expected)


def test_the_vector_is_the_module() -> None:
    """`module_at` gives views: what is done to the vector is done to the module."""
    ours = objective()
    at = flat(ours.module)
    bound = ours.module_at(at)
    at.fill_(2.0)
    assert all((parameter == 2).all() for parameter in bound.parameters())
