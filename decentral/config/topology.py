"""The `topology:` section: a graph, the mixing weights on it, and which edges are used in which round."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from decentral.config.section import Named, OpenSection, Section, tag


class Static(Section):
    """All edges in every round."""

    name: Literal["static"] = "static"


class Matchings(Section):
    """One partner a round: the matchings of an edge coloring of the graph, in turn."""

    name: Literal["matchings"]


class RandomMatchings(Section):
    """One partner a round at random: a maximal matching of the graph, drawn anew in each round."""

    name: Literal["random-matchings"]
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draws, which are the same at all nodes."""


class Matcha(Section):
    """MATCHA, Wang et al. 2019: each matching of the graph is used by chance, as a communication budget allows.

    It has its own probabilities and its own weight; the topology's `weights` and `scaling` stay unsaid.
    """

    name: Literal["matcha"]
    budget: float = Field(0.5, gt=0, le=1)
    """The mean share of the matchings that a round uses; 1 is all edges in every round."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draws, which are the same at all nodes."""


Schedule = Annotated[
    Annotated[Static, Tag("static")]
    | Annotated[Matchings, Tag("matchings")]
    | Annotated[RandomMatchings, Tag("random-matchings")]
    | Annotated[Matcha, Tag("matcha")],
    Discriminator(tag),
    Named,
]


class Topology(OpenSection):
    """Who talks to whom: a graph of the gallery or the user's own file, the mixing weights on it, and its schedule.

    Its vertices are the nodes; with algorithm hierarchical, the groups.
    """

    name: str = Field(min_length=1)
    """A name of `decentral topology list`, or a file: .py, .graphml, .gml, .edgelist, .txt, .csv, .npy or .json."""
    weights: Literal["metropolis", "uniform", "given", "column-stochastic", "fastest"] | None = None
    """metropolis: 1/(1 + max degree). uniform: 1/(1 + degree), regular graphs only. given: the edges' `weight`.
    column-stochastic: the sender's 1/(1 + degree), for push-sum. fastest: the least max(|l_2|, |l_n|) approximately, to
    1e-6, on up to 200 nodes and 1,000 edges. Unless said, what the file means, else metropolis."""
    scaling: Literal["none", "lazy", "optimal"] | Annotated[float, Field(gt=0, le=2)] = "none"
    """W_s = (1-s) I + s W in place of W. lazy: s = 1/2. optimal: what shrinks disagreement fastest, by the spectrum,
    but no more than leaves every node a weight of its own that is not negative."""
    schedule: Schedule = Static()
    """Which edges are used in which round; a schedule is the same at all nodes without communication."""
