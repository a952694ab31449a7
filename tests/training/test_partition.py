"""Every partition covers the samples exactly; the same seed gives the same one; skew follows its parameter."""

from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral import config
from decentral.errors import ConfigError
from decentral.training.data import load
from decentral.training.partition import PARTITIONS, split

SECTIONS = {
    "iid": config.IID(name="iid"),
    "dirichlet": config.Dirichlet(name="dirichlet", alpha=1.0, min_samples=1),
    "shards": config.Shards(name="shards", per_node=2),
}


def labels_of(samples, classes=10, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(classes, size=samples))


def skew(parts, targets):
    """Mean over nodes of the total variation distance between the node's classes and all nodes'."""
    overall = torch.bincount(targets, minlength=10) / len(targets)
    return np.mean(
        [float((torch.bincount(targets[p], minlength=10) / len(p) - overall).abs().sum()) / 2 for p in parts]
    )


def test_every_partition_is_tested():
    assert SECTIONS.keys() == PARTITIONS.keys()


@pytest.mark.parametrize("name", SECTIONS)
@settings(max_examples=40, deadline=None)
@given(nodes=st.integers(1, 12), samples=st.integers(120, 400), classes=st.integers(1, 10), seed=st.integers(0, 2**31))
def test_every_sample_is_on_one_node_and_no_node_is_empty(name, nodes, samples, classes, seed):
    parts = split(SECTIONS[name], labels_of(samples, classes, seed), nodes, seed)
    assert len(parts) == nodes
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(samples))
    for part in parts:
        assert part.dtype == torch.int64
        assert len(part) > 0
        assert (part.diff() > 0).all()


@pytest.mark.parametrize("name", SECTIONS)
def test_the_seed_and_nothing_else_decides(name):
    targets = labels_of(300)
    first, again, other = (split(SECTIONS[name], targets, 5, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("name", "digest"),
    [("iid", "eda88c8769adc365"), ("dirichlet", "a9c2c5e92a522026"), ("shards", "32121c547f0f26a3")],
)
def test_partitions_of_digits_never_change(name, digest):
    """A partition that drifts between versions makes runs of one seed incomparable, and nothing else would show it."""
    section = config.Digits(name="digits", test_fraction=0.2)
    parts = split(SECTIONS[name], load(section, 8, 0, Path(), torch.float32).train_targets, 8, seed=1)
    text = ";".join(",".join(map(str, part.tolist())) for part in parts)
    assert sha256(text.encode()).hexdigest()[:16] == digest


def test_without_a_section_the_split_is_iid_and_equal_to_one_sample():
    targets = torch.zeros(103)
    parts = split(None, targets, 10, 0)
    assert all(torch.equal(a, b) for a, b in zip(parts, split(SECTIONS["iid"], targets, 10, 0), strict=True))
    assert {len(part) for part in parts} == {10, 11}


def test_skew_grows_as_alpha_falls():
    targets = labels_of(5000)
    alphas = (1e4, 10.0, 1.0, 0.1)
    skews = [
        np.mean(
            [
                skew(split(config.Dirichlet(name="dirichlet", alpha=alpha, min_samples=1), targets, 10, seed), targets)
                for seed in range(5)
            ]
        )
        for alpha in alphas
    ]
    assert all(less < more for less, more in pairwise(skews))
    assert skews[0] < 0.02
    assert skews[-1] > 0.5


def test_dirichlet_draws_until_every_node_has_its_minimum():
    section = config.Dirichlet(name="dirichlet", alpha=0.1, min_samples=20)
    assert min(map(len, split(section, labels_of(2000), 10, 0))) >= 20


def test_shards_give_each_node_about_as_many_classes_as_shards():
    targets = torch.arange(10).repeat(100)
    for part in split(config.Shards(name="shards", per_node=2), targets, 10, 0):
        assert len(part) == 100
        assert len(targets[part].unique()) <= 2
    single = split(config.Shards(name="shards", per_node=1), targets, 10, 0)
    assert [len(targets[part].unique()) for part in single] == [1] * 10


@pytest.mark.parametrize(
    ("section", "samples", "nodes", "message"),
    [
        (None, 3, 4, r"3 training samples for 4 nodes; .* lower nodes"),
        (
            config.Dirichlet(name="dirichlet", min_samples=30),
            100,
            4,
            r"need 120, found 100; lower min_samples or nodes",
        ),
        (
            config.Dirichlet(name="dirichlet", alpha=1e-4, min_samples=5),
            100,
            10,
            r"alpha=0.0001\) left one of 10 nodes with fewer than 5 samples in each of 1000 draws; raise alpha",
        ),
        (config.Shards(name="shards", per_node=30), 100, 4, r"4 nodes with 30 shards .* 120 samples, found 100"),
    ],
)
def test_what_cannot_be_met_is_refused(section, samples, nodes, message):
    with pytest.raises(ConfigError, match=message):
        split(section, labels_of(samples), nodes, 0)


@pytest.mark.parametrize("name", ["dirichlet", "shards"])
@pytest.mark.parametrize("targets", [torch.zeros(50), torch.zeros(50, 2, dtype=torch.int64)])
def test_splitting_by_class_needs_classes(name, targets):
    with pytest.raises(ConfigError, match=f"partition '{name}' splits by class, but the targets are .* partition iid"):
        split(SECTIONS[name], targets, 5, 0)
