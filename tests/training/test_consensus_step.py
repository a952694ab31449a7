"""A method's consensus step is searched for once in a job, by rank 0, and told to all."""

from collections.abc import Mapping
from typing import Any

import networkx as nx
import pytest
import torch

from decentral.algorithms.choco import Choco
from decentral.algorithms.dsgd import DSGD
from decentral.compression import Space, section_of
from decentral.compression.consensus_step import Search, Trial, search
from decentral.errors import ConfigError
from decentral.topology.topology import Topology
from decentral.training import consensus_step
from decentral.training.consensus_step import ConsensusSteps, Found, identity
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.contract.runs import sgd

RING = Topology.static("ring", nx.cycle_graph(4), "metropolis")
HALF = {"name": "top-k", "fraction": 0.5}
SPACE = Space(40, torch.float32)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that were searched for; each search finds 0.25."""
    made: list[int] = []

    def quick(graph: Topology, section: Any, space: Space) -> Search:
        made.append(space.size)
        return Search(0.25, (Trial(0.25, (0.1,)),))

    monkeypatch.setattr(consensus_step, "search", quick)
    return made


def choco(step: Any = "auto") -> Choco:
    return Choco(local=sgd(0.1), compression=HALF, consensus_step=step)


def test_it_is_searched_for_once_and_told_once(searches: list[int]) -> None:
    told: list[str] = []
    kept: list[Mapping[str, Found]] = []
    steps = ConsensusSteps(tell=told.append, keep=lambda known: kept.append(dict(known)))
    assert [steps.tuned(choco(), RING, SPACE).consensus_step for _ in range(3)] == [0.25] * 3
    assert (searches, len(kept)) == ([40], 1)
    (line,) = told
    assert line.startswith("consensus step 0.25 for top-k fraction=0.5 on ring of 4: of 1 that were tried 0.25 leaves")
    again = ConsensusSteps(known=kept[0])
    assert again.tuned(choco(), RING, SPACE).consensus_step == 0.25
    assert searches == [40]
    again.tuned(choco(), RING, Space(41, torch.float32))
    assert searches == [40, 41]


def test_a_method_that_has_it_or_needs_none_stays_as_it_is(searches: list[int]) -> None:
    for method in (choco(0.3), DSGD(local=sgd(0.1)), None):
        assert ConsensusSteps().tuned(method, RING, SPACE) is method
    assert not searches


def test_all_that_a_search_depends_on_tells_it_from_others() -> None:
    section = section_of(HALF)
    path = Topology.static("ring", nx.path_graph(4), "metropolis")
    others = [
        identity(path, section, SPACE),
        identity(RING, section_of(HALF | {"fraction": 0.4}), SPACE),
        identity(RING, section, Space(41, torch.float32)),
    ]
    assert identity(RING, section, SPACE) not in others
    assert identity(RING, section, SPACE) == identity(
        Topology.static("other name", nx.cycle_graph(4), "metropolis"), section, SPACE
    )


def test_rank_0_searches_for_all(searches: list[int]) -> None:
    def work(world: World) -> float:
        steps = ConsensusSteps(world)
        steps.tuned(choco(), RING, SPACE)
        return steps.tuned(choco(), RING, SPACE).consensus_step

    assert on_ranks(3, work) == [0.25] * 3
    assert searches == [40]


def test_a_fault_that_rank_0_finds_is_everyones() -> None:
    unfit = Choco(local=sgd(0.1), compression={"name": "qsgd", "bits": 2})

    def work(world: World) -> tuple[str, bool]:
        with pytest.raises(ConfigError) as fault:
            ConsensusSteps(world).tuned(unfit, RING, Space(10_000, torch.float32))
        return str(fault.value), fault.value.echo

    (one, first), (other, second) = on_ranks(2, work)
    assert one == other
    assert "no consensus step helps" in one
    assert (first, second) == (False, True)


def test_what_is_found_survives_as_json() -> None:
    found = Found.by(search(RING, HALF, SPACE), section_of(HALF), RING, SPACE)
    assert Found.model_validate_json(found.model_dump_json()) == found
