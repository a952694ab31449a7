"""The `algorithm:` sections of methods in which node 0 of a star serves: the centralized asynchronous baselines.

The hub computes nothing. So that nothing is lost, its samples are dealt to the others.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class HubSection(Section):
    """What all methods of a hub are told."""

    centralized: ClassVar[bool] = False
    assign: Literal["ready", "random", "shuffled"] = "ready"
    """Who gets the next job: ready, who came back, so that fast nodes do more; random, any node; or shuffled, each once
    in random order, and so on. A job waits at a node that is busy."""
    concurrency: int | None = Field(None, ge=1)
    """C: how many jobs are out at any time; one for each node but the hub unless given, always so where ready."""
    wait_for: int = Field(1, ge=1)
    """How many jobs must be back before as many are handed out; all of random ones are minibatch SGD."""


class BoundedHubSection(HubSection):
    """Those of them that can wait for a late node."""

    max_delay: int | None = Field(None, ge=0)
    """How many changes of the model old at most the point of a gradient is: the hub waits for it; null for no bound."""


class AsyncSGD(BoundedHubSection):
    """Asynchronous SGD at a hub, with steps that may depend on the delay (Mishchenko et al., Koloskova et al. 2022)."""

    name: Literal["async-sgd"]
    rule: Literal["constant", "mishchenko", "koloskova"] = "constant"
    """The step after a delay of tau: lr; lr C / max(C, tau); or lr where tau <= C, and lr / tau beyond."""


class Ringmaster(HubSection):
    """Ringmaster ASGD (Maranjyan et al. 2025): asynchronous SGD at a hub that drops late gradients."""

    name: Literal["ringmaster"]
    drop_after: int = Field(ge=1)
    """R: gradients whose delay has reached it are dropped; in the order of the noise's variance over the wanted squared
    norm of the gradient."""


class DCASGD(BoundedHubSection):
    """DC-ASGD (Zheng et al. 2017): asynchronous SGD at a hub that corrects late gradients by g g (x - x')."""

    name: Literal["dc-asgd"]
    strength: float | None = Field(None, ge=0)
    """lambda; 0.04 unless given, or 2 where adaptive."""
    adaptive: bool = False
    """Whether lambda is divided by the root of a running mean of squared gradients, component by component."""
    decay: float = Field(0.95, ge=0, lt=1)
    """m, of that running mean."""


class FedAsync(BoundedHubSection):
    """FedAsync (Xie et al. 2019): the hub mixes each model that comes back into its own, the less the later."""

    name: Literal["fedasync"]
    every: int = Field(10, ge=1)
    """tau: local steps of each job."""
    mix: float = Field(0.6, gt=0, le=1)
    """a: how much of a model that comes in time."""
    weigh: Literal["constant", "polynomial", "hinge"] = "polynomial"
    """How much less of one that is s changes late: (1+s)^-exponent, or 1/(1 + hinge_slope max(s - hinge_after, 0))."""
    exponent: float = Field(0.5, ge=0)
    """Of polynomial."""
    hinge_after: int = Field(4, ge=0)
    """Up to which delay hinge takes all of it."""
    hinge_slope: float = Field(10.0, ge=0)
    """How fast it takes less of it after that."""
    proximal: float = Field(0.0, ge=0)
    """rho: how strongly local steps are held to the model that the job began with, by rho/2 |x - x'|^2 in the loss."""


class FedBuff(BoundedHubSection):
    """FedBuff (Nguyen et al. 2022): the hub takes one step along the mean change of every K jobs."""

    name: Literal["fedbuff"]
    every: int = Field(10, ge=1)
    """tau: local steps of each job."""
    buffer: int = Field(10, ge=1)
    """K."""
    server_lr: float = Field(1.0, gt=0)
    """gamma: how far the hub goes along the mean change."""
    discount: bool = True
    """Whether a change that is s steps of the hub late counts (1+s)^-1/2."""


class FedFix(HubSection):
    """FedFix (Fraboni et al. 2023): the hub takes a step at fixed times, unbiased however fast nodes are."""

    name: Literal["fedfix"]
    every_s: float = Field(gt=0)
    """D: seconds between steps of the hub."""
    every: int = Field(10, ge=1)
    """tau: local steps of each job."""
    weights: Literal["unbiased", "identical"] = "unbiased"
    """Whether what a node changed counts as often as steps went by without it, or once."""
    importance: list[Annotated[float, Field(gt=0)]] = Field([])
    """p_i of the nodes 1, 2, ... in proportion; all the same unless given."""
