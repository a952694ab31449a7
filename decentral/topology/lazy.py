"""(I+W)/2 in place of W: half of each step, and no eigenvalue of a doubly stochastic matrix below 0."""

from dataclasses import replace

from decentral.errors import ConfigError
from decentral.topology.analysis import spectrum
from decentral.topology.scaling import scaled
from decentral.topology.schedule import StaticSchedule
from decentral.topology.topology import Topology

MARGIN = 1e-4
"""How near to a bound an eigenvalue counts as on it; the spectrum of a large matrix is no more accurate."""


def lazy(graph: Topology) -> Topology:
    """The same links with (I+W)/2 in every turn, of a static graph."""
    return replace(graph, schedule=StaticSchedule(scaled(graph.schedule.matrix(0), "lazy")))


def least_eigenvalue(graph: Topology) -> float:
    """l_n of a graph whose mixing matrix is symmetric and the same in every turn."""
    return spectrum(graph.schedule.matrix(0)).last


def refuse_changing(graph: Topology, method: str) -> None:
    """Raise ConfigError where the mixing matrix changes from turn to turn.

    Args:
        method: what needs it to stay the same, for the user.
    """
    if graph.schedule.period != 1:
        raise ConfigError(
            f"the mixing matrix of {graph.name} changes from turn to turn, and {method} needs the same in all; leave "
            "the schedule out, or take gradient-tracking or qg-dsgdm, which allow one"
        )
