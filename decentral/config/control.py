"""What a phase of consensus control says; the section itself, which names other methods, is in `config.algorithms`."""

from pydantic import Field

from decentral.config.section import Section


class ControlPhase(Section):
    """From a round on, another target."""

    start: int = Field(ge=0)
    """The first round of the phase."""
    target: float | None = Field(gt=0)
    """The target until the next phase; null for no control."""
