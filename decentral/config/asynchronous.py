"""The `algorithm:` sections of asynchronous methods: each node steps at its own pace, and waits for nobody.

How long they run is `duration_s` of the experiment; simulated runs need a `clock:`, by which they are faster or slower.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class AsynchronousSection(Section):
    """What all asynchronous methods are told."""

    centralized: ClassVar[bool] = False
    max_delay: int | None = Field(None, ge=0)
    """How many steps old at most that is which a node uses: it waits for something newer; null for no bound."""


class ADPSGD(AsynchronousSection):
    """AD-PSGD (Lian et al. 2018): pairs average while they compute, on any graph, and nobody locks or waits.

    The topology's weights are not used; a schedule of matchings pairs the nodes off by their own steps.
    """

    name: Literal["ad-psgd"]


class Swift(AsynchronousSection):
    """SWIFT (Bornstein et al. 2023): gossip with the models that neighbors have sent last, however old, wait-free."""

    name: Literal["swift"]
    every: int = Field(1, ge=1)
    """tau: average in every tau-th own step only."""
    memory: bool = True
    """Whether a neighbor's model counts until a newer one comes; else once, and no copies are kept."""
    weights: Literal["topology", "ccs"] = "topology"
    """Whose averaging weights: the topology's; or ccs, made for its links so that the losses of nodes count as their
    influence says."""
    influence: list[Annotated[float, Field(gt=0)]] = Field([])
    """p_i of the nodes 0, 1, ... in proportion, for ccs; all the same unless given. Where they are the shares of all
    steps that nodes make, the mean of all models is kept in expectation."""


class AsyncGradientPush(AsynchronousSection):
    """Asynchronous gradient push (Assran and Rabbat 2020): push-sum whose mass may come late and is never lost."""

    name: Literal["async-gradient-push"]
    weigh: bool = True
    """Whether a step counts by the node's weight, so that fast nodes, which have less, pull no harder; else by 1."""


class DelayedDSGD(Section):
    """D-SGD in rounds, with neighbors' models or the points of gradients that are some rounds old."""

    centralized: ClassVar[bool] = False
    name: Literal["delayed-dsgd"]
    delay: int | None = Field(None, ge=0, le=1024)
    """tau: how many rounds old; 1 unless given, or a histogram is."""
    of: Literal["models", "gradients"] = "models"
    """What comes late: what neighbors send, or a node's own gradients."""
    histogram: list[Annotated[int, Field(ge=0)]] = Field([], max_length=1025)
    """How often it is 0, 1, 2, ... rounds old, such as the `staleness` that an asynchronous run recorded: each link, or
    node, and round draws from it."""
