"""The `algorithm:` sections of methods with momentum over the graph, or a correction of the bias of unequal data.

They take the learning rate and the weight decay of the experiment's `optimizer:` section.
"""

from typing import ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class GradientTracking(Section):
    """Gradient tracking: each node steps along a running estimate of the mean gradient of all, which it mixes too."""

    centralized: ClassVar[bool] = False
    name: Literal["gradient-tracking"]
    order: Literal["mixed", "adapt-then-combine", "adapt-while-communicate"] = "mixed"
    """Which of the three recursions. mixed: Koloskova, Lin and Stich 2021; adapt-then-combine: Aug-DGM, two exchanges
    a round; adapt-while-communicate: DIGing, whose exchange hides behind the gradient. All send two vectors."""


class D2(Section):
    """D2 (Tang et al. 2018): D-SGD with a correction that removes the bias of heterogeneous data, at no more bytes."""

    centralized: ClassVar[bool] = False
    name: Literal["d2"]
    lazy: Literal["auto", "never"] = "auto"
    """D2 needs a fixed symmetric matrix with all eigenvalues above -1/3. auto: take (I+W)/2 where W has others, and say
    so; never: refuse it."""


class ExactDiffusion(Section):
    """Exact Diffusion (Yuan et al. 2019): adapt, correct, combine with (I+W)/2; exact with heterogeneous data."""

    centralized: ClassVar[bool] = False
    name: Literal["exact-diffusion"]


class QuasiGlobalMomentum(Section):
    """QG-DSGDm (Lin et al. 2021): momentum from the difference of mixed models, which points where all nodes go."""

    centralized: ClassVar[bool] = False
    name: Literal["qg-dsgdm"]
    momentum: float = Field(0.9, ge=0, lt=1)
    """beta: how much of the buffer a step takes."""
    mu: float = Field(0.9, ge=0, le=1)
    """How much of itself the buffer keeps in a round."""
    nesterov: bool = True
    """Nesterov's form, QG-DSGDm-N; else heavy ball, QG-DSGDm."""


class QuasiGlobalAdam(Section):
    """QG-DAdam (Lin et al. 2021): Adam whose two moments are those of the difference of mixed models."""

    centralized: ClassVar[bool] = False
    name: Literal["qg-dadam"]
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(1e-8, gt=0)
    """What is added to the root of the second moment."""
    variant: Literal["paper", "sum", "normalized", "local"] = "paper"
    """paper: the gradient enters the first moment with 1 - beta1. sum: with 1. normalized: as paper, each output
    channel's gradient divided by its norm before. local: the first moment is the node's own, as in plain Adam."""


class DecentLaM(Section):
    """DecentLaM (Yuan et al. 2021): momentum that adds no bias, whatever its size: for large batches."""

    centralized: ClassVar[bool] = False
    name: Literal["decentlam"]
    momentum: float = Field(0.9, ge=0, lt=1)
    """beta."""


class SlowMo(Section):
    """SlowMo (Wang et al. 2020): D-SGD or local SGD, and a momentum step on what some rounds of it have changed."""

    centralized: ClassVar[bool] = False
    name: Literal["slowmo"]
    every: int = Field(48, ge=1)
    """tau: rounds between slow steps."""
    slow_momentum: float = Field(0.5, ge=0, lt=1)
    """beta: fairscale advises 0.2 for 4 nodes, 0.5 for 8, 0.6 for 16."""
    slow_lr: float = Field(1.0, gt=0)
    """alpha: how far the slow step goes; 1 with slow_momentum 0 is plain averaging."""
    gossip: bool = True
    """Whether models mix in every round; otherwise nodes take local steps alone between slow steps."""
    average: Literal["exact", "none"] = "exact"
    """exact: before a slow step all models are averaged, by an all-reduce over all nodes. none: each node keeps its
    own, and nothing but gossip is sent (SGP-SlowMo-noaverage)."""


class MomentumTracking(Section):
    """Momentum Tracking (Takezawa et al. 2023): gradient tracking of the local momenta. Two vectors a message."""

    centralized: ClassVar[bool] = False
    name: Literal["momentum-tracking"]
    momentum: float = Field(0.9, ge=0, lt=1)
    """beta."""


class GlobalUpdateTracking(Section):
    """Global update tracking, GUT (Aketi, Hashemi and Roy 2023): tracks the mean update from the models alone."""

    centralized: ClassVar[bool] = False
    name: Literal["gut"]
    mu: float = Field(0.9, ge=0, lt=1)
    """Scaling of the correction; 0 is D-SGD, combine-then-adapt."""
