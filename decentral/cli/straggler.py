"""`--straggler node=3,slowdown=10`: the file's `stragglers:` in short, as an override of it."""

from collections.abc import Sequence

from decentral.errors import ConfigError

KEYS = {"node": "node", "slowdown": "slowdown", "cpu": "cpu", "stall": "lasting_s", "every": "every_s"}
"""What each stands for in the section."""
_FORM = (
    "required: node=I,slowdown=F, node=I,cpu=SHARE or node=I,stall=SECONDS,every=SECONDS, such as "
    "--straggler node=3,slowdown=10"
)


def with_stragglers(overrides: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """Overrides, and one more for the stragglers of the command line, if it has any.

    Raises:
        ConfigError: one of another form.
    """
    if not given:
        return [*overrides]
    return [*overrides, f"stragglers=[{', '.join(map(_section, given))}]"]


def _section(text: str) -> str:
    """One of them as YAML on one line."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    keys = sorted(key.strip() for key, _ in pairs)
    try:
        numbers = [float(value) for _, value in pairs]
    except ValueError as error:
        raise ConfigError(f"--straggler {text}: found another thing than numbers; {_FORM}") from error
    if keys not in (["node", "slowdown"], ["cpu", "node"], ["every", "node", "stall"]):
        raise ConfigError(f"--straggler {text}: found {', '.join(keys) or 'nothing'}; {_FORM}")
    entries = zip(pairs, numbers, strict=True)
    return "{" + ", ".join(f"{KEYS[key.strip()]}: {number:g}" for (key, _), number in entries) + "}"
