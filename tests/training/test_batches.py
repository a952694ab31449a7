"""The order of minibatches is a function of seed, node and number; an epoch takes no sample twice."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decentral.training.batches import Batches


def batches_of(samples, size, seed=0, node=0):
    return Batches(torch.arange(samples).view(-1, 1), torch.arange(samples), size, seed, node)


def taken(batches, count):
    return [batches.next()[1].tolist() for _ in range(count)]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**31 - 1))
def test_an_epoch_takes_each_sample_at_most_once(samples, size, seed):
    batches = batches_of(samples, size, seed)
    expected = min(size, samples)
    for _ in range(3):
        epoch = taken(batches, batches.per_epoch)
        flat = [sample for batch in epoch for sample in batch]
        assert {len(batch) for batch in epoch} == {expected}
        assert len(set(flat)) == len(flat) > samples - expected
    assert batches.taken == 3 * batches.per_epoch


def test_inputs_and_targets_stay_together():
    inputs, targets = batches_of(20, 6).next()
    assert inputs.shape == (6, 1)
    assert torch.equal(inputs[:, 0], targets)


@given(st.integers(0, 30))
def test_setting_taken_resumes_at_any_batch(start):
    resumed = batches_of(17, 4)
    resumed.taken = start
    assert taken(resumed, 9) == taken(batches_of(17, 4), start + 9)[start:]


def test_epochs_nodes_and_seeds_draw_apart():
    batches = batches_of(100, 10)
    first, second = taken(batches, 10), taken(batches, 10)
    orders = [first, second, taken(batches_of(100, 10, node=1), 10), taken(batches_of(100, 10, seed=1), 10)]
    assert len({str(order) for order in orders}) == 4
    assert taken(batches_of(100, 10), 10) == first


def test_every_sample_is_drawn_in_time():
    """What an epoch leaves over differs from epoch to epoch, or some samples would never be seen."""
    assert len({sample for batch in taken(batches_of(10, 6), 20) for sample in batch}) == 10


@pytest.mark.parametrize("size", [7, 100])
def test_a_batch_as_large_as_the_samples_is_all_of_them(size):
    batches = batches_of(7, size)
    assert taken(batches, 3) == [list(range(7))] * 3
