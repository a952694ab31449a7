"""The `algorithm:` sections of asynchronous methods: each node steps at its own pace, and waits for nobody.

How long they run is `duration_s` of the experiment; simulated runs need a `clock:`, by which they are faster or slower.
"""

from typing import ClassVar, Literal

from pydantic import Field

from decentral.config.section import Section


class AsynchronousSection(Section):
    """What all asynchronous methods are told."""

    centralized: ClassVar[bool] = False
    max_delay: int | None = Field(None, ge=0)
    """How many steps old at most that is which a node uses: it waits for something newer; null for no bound."""


class Swift(AsynchronousSection):
    """SWIFT (Bornstein et al. 2023): gossip with the models that neighbors have sent last, however old, wait-free."""

    name: Literal["swift"]
    every: int = Field(1, ge=1)
    """tau: average in every tau-th own step only."""
    memory: bool = True
    """Whether a neighbor's model counts until a newer one comes; else once, and no copies are kept."""
