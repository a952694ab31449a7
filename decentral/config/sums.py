"""The `algorithm:` sections of methods that pass on sums: push-sum on directed graphs, RelaySum on trees."""

from typing import ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class StochasticGradientPush(Section):
    """SGP (Assran et al. 2019): D-SGD by push-sum, for directed graphs whose nodes may send more than they receive."""

    centralized: ClassVar[bool] = False
    name: Literal["sgp"]
    delay: int = Field(0, ge=0, le=64)
    """tau: rounds by which what neighbors send comes late (overlap SGP). 1 hides it behind the gradient; more hides no
    more, and costs the memory of a model each."""


class RelaySGD(Section):
    """RelaySGD (Vogels et al. 2021): models are relayed along a tree, so that all count alike, late but without bias.

    The tree is the topology's; its weights are not used. The paper's best rates for it are 3 to 5 times D-SGD's.
    """

    centralized: ClassVar[bool] = False
    name: Literal["relay-sgd"]
    form: Literal["arrived", "own", "start", "updates"] = "arrived"
    """What a node steps to before all others' models have come, in as many rounds as the tree is wide. arrived: the
    mean of those that have, whose number is sent along. own, start: the node's own model, or the first of all, stands
    for those that have not. updates: steps are relayed in place of models (RelaySGD/Grad)."""
    trees: int = Field(1, ge=1)
    """How many trees the topology has, one in each turn of its schedule; each relays its part of the model.
    With 2, and topology double_binary_trees with apart: true, no node sends more than four halves."""
