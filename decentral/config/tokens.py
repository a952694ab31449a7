"""The `algorithm:` sections of token methods: a model walks from node to node, and nobody averages.

A round gives each token `visits` visits. With more of them fewer notices of a round's end are sent for each visit.
"""

from typing import ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class TokenSection(Section):
    """What all token methods are told."""

    centralized: ClassVar[bool] = False
    kernel: Literal["simple", "weighted", "metropolis", "non-backtracking", "srrw", "hdt"] = "metropolis"
    """How tokens hop; `decentral topology walk` explains and measures each."""
    alpha: float = Field(0.0, ge=0)
    """How strongly visits repel, for the kernels srrw and hdt."""
    fake_visits: float = Field(1.0, gt=0)
    """What the counts of srrw and hdt begin with, at a node of mean target."""
    target: Literal["uniform", "degree"] | None = None
    """The share of visits that each node is to have; the kernel's own unless given."""
    tokens: int = Field(1, ge=1, le=100_000)
    """How many models walk."""
    visits: int = Field(1, ge=1)
    """Visits of each token in a round. The more, the fewer messages about rounds' ends; but a node waits no longer than
    transport.timeout_s without a message, and keeps a gradient of memory for each of its visits until its end."""
    meeting: Literal["independent", "average"] = "independent"
    """What tokens do that rest at one node between two rounds: nothing, or take their mean."""
    counts_at: Literal["token", "nodes"] = "token"
    """Who keeps the visits that srrw and hdt need: the token carries those of all nodes, 8 bytes each; or each node
    keeps its own, and a token's holder asks its neighbors (hdt: one) by letters of 72 bytes. Tokens then share them."""
    route: Literal["letters", "seeded"] = "letters"
    """How a node knows that a token comes. letters: it waits for one from any neighbor. seeded: every node works out
    the whole route of every token from the seed, so that nothing but tokens is sent, over any link, NCCL's too."""


class RandomWalkSGD(TokenSection):
    """Random-walk SGD, also Markov chain gradient descent (Sun, Sun and Yin 2018): each visit is one step."""

    name: Literal["mcgd"]
    decay: float = Field(0.0, ge=0, le=1)
    """q: visit t = 0, 1, ... steps with the learning rate times (t + 2)^-q."""
    step_by: Literal["sgd", "heavy-ball", "adam"] = "sgd"
    """How the model steps; what heavy-ball and adam remember walks with it."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Momentum of heavy-ball, and the decay of adam's first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of adam's second moment."""
    epsilon: float = Field(1e-8, gt=0)
    """What adam adds to the root of the second moment."""
    fork_below: float | None = Field(None, gt=0)
    """Epsilon: a token forks where half of all tokens seem fewer, with chance 1 / tokens at a visit; unless given, none
    does. Of 10 tokens, 2 makes good for losses; `decentral topology population` tries it."""
    drop_above: float | None = Field(None, gt=0)
    """Epsilon_2: a token drops where half of all tokens seem more; take at least three times fork_below."""
    loss: float = Field(0.0, ge=0, lt=1)
    """With this probability a visit loses its token: an experiment, to see what comes of losses."""


class SASRRW(RandomWalkSGD):
    """SA-SRRW (Hu, Doshi and Eun 2024): random-walk SGD along a walk that is repelled by where it has been."""

    name: Literal["sa-srrw"]  # type: ignore[assignment]
    kernel: Literal["srrw", "hdt"] = "srrw"
    """How tokens hop."""
    alpha: float = Field(5.0, ge=0)
    """How strongly visits repel: 1 is safe, 5 to 10 are usual, 0 is the kernel metropolis."""
    decay: float = Field(0.9, ge=0, le=1)
    """b: visit t = 0, 1, ... steps with the learning rate times (t + 2)^-b."""
    gamma_decay: float = Field(0.8, gt=0, le=1)
    """a: the visit counts for (t + 2)^-a of all; 1 counts visits. Below b, alpha gains most."""


class Walkman(TokenSection):
    """Walkman (Mao et al. 2020): ADMM by a walking token, exact with heterogeneous data at a constant learning rate."""

    name: Literal["walkman"]
    kernel: Literal["simple", "weighted", "metropolis", "non-backtracking", "srrw", "hdt"] = "simple"
    """How the token hops."""
    tokens: Literal[1] = 1
    """One model walks."""
    variant: Literal["gradient", "proximal"] = "gradient"
    """What a visit costs: one gradient, or inner_steps of them towards the proximal point."""
    inner_steps: int = Field(10, ge=1)
    """Gradients of a proximal visit."""
    inner_lr: float = Field(0.1, gt=0)
    """Learning rate of these; at most 1 over the smoothness."""


class TokenGossip(TokenSection):
    """Gossip through tokens: each node trains a model of its own, and walking models pull them together."""

    name: Literal["token-gossip"]
    pull: float = Field(0.5, gt=0, lt=1)
    """p: how far a visit moves the node's model and the token's towards each other; at 0.5 they meet."""


class TokenExchange(TokenSection):
    """Token exchange (Hendrikx 2023): several tokens trade with nodes' dual sums, exact with heterogeneous data. The
    learning rate is 1 / sigma: each loss, weight decay included, must have curvature of (1 + tokens / nodes) sigma."""

    name: Literal["token-exchange"]
    rho: float = Field(0.05, gt=0, le=1)
    """How far a node's model moves to its dual sum before each gradient; at most 1 / (2 + lr * smoothness)."""
    pull: float = Field(0.5, gt=0, lt=1)
    """c: how far an exchange moves the node's dual sum and the token towards each other."""
    exchange_share: float = Field(0.5, gt=0, lt=1)
    """p: exchanges among all events; the others are gradients, spread over nodes at random."""
    gap: int = Field(1, ge=1)
    """A token exchanges at every gap-th visit; above 1 it mixes in between."""
