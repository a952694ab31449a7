"""What every section of an experiment file is made of: its place in the file, open and closed keys, names and tags."""

from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

KeyPath = tuple[str | int, ...]

OWN = "module:function"
"""The tag of a section that names the user's own code."""


class Section(BaseModel):
    """A mapping of the experiment file. `path` is where it stands there, for error messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    _path: KeyPath = PrivateAttr(default=())

    @property
    def path(self) -> KeyPath:
        return self._path


class OpenSection(Section):
    """A section whose further keys are options of what its name stands for."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _named(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


def tag(raw: Any) -> str | None:
    """The name by which a section is told from others of its kind; OWN for the user's own code."""
    name = raw.get("name") if isinstance(raw, dict) else getattr(raw, "name", None)
    return OWN if isinstance(name, str) and ":" in name else name


Named = BeforeValidator(_named)
"""A plain string stands for a section's name."""


class OwnCode(OpenSection):
    """The user's own function or class, by `module:function`; further keys are its keyword arguments."""

    centralized: ClassVar[bool] = False

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, importable from the experiment's folder or the current one."""
