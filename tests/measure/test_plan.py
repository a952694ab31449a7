"""What a method will hold in memory, from its own text."""

from typing import Any

import pytest

from decentral.loading import example_with
from decentral.measure.plan import memory_bytes
from decentral.measure.prepared import prepare_all
from decentral.methods import methods

CHOCO = {"name": "choco", "compression": {"name": "top-k", "k": 10}, "consensus_step": 0.1}


def held(algorithm: Any, topology: Any) -> dict[str, int]:
    experiment = example_with(algorithm=algorithm, topology=topology, nodes=8, rounds=20, data="digits", model="linear")
    (own, *_) = prepare_all(experiment, methods(experiment)[:1], 0)
    return memory_bytes(own, own.busiest)


@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_public_copies_are_two_vectors_whatever_the_degree(topology: str) -> None:
    plain, copied = held("dsgd", topology), held(CHOCO, topology)
    assert plain["algorithm"] == 0
    assert 2 * plain["model"] <= copied["algorithm"] < 2 * plain["model"] + 100
    assert copied["messages"] < plain["messages"] / 10


def test_where_edges_change_there_are_two_vectors_for_each_and_where_they_began() -> None:
    plain, copied = held("dsgd", "ring"), held(CHOCO, {"name": "ring", "schedule": "matchings"})
    assert 5 * plain["model"] <= copied["algorithm"] < 5 * plain["model"] + 300
