"""The event log of a simulated run: a line of JSON for each thing that takes time, from which the run can be repeated.

    {"event": "run", "nodes": 8}                                                                     the first line
    {"event": "gradient", "node": 3, "number": 0, "from_s": 0.0, "until_s": 0.01}
    {"event": "message", "from": 3, "to": 4, "number": 0, "at_s": 0.0, "tries": 1, "arrivals_s": [0.02], "free_s": 0.01}
    {"event": "taken", "node": 4, "at_s": 0.02, "pushes": {"3": 0}}                                by sender, its step
    {"event": "duplicate", "node": 4, "at_s": 0.07, "from": 3, "number": 0}
    {"event": "step", "node": 3, "at_s": 0.01}
    {"event": "down", "node": 2, "at_s": 0.5, "rejoin": "own"}, {"event": "up", "node": 2, "at_s": 0.9}

A time that never comes is null. Numbers count from 0, of each node or link. What is repeated is gradients, messages and
outages; all the rest follows from them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from os import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from decentral.errors import ConfigError
from decentral.transport.clock.spells import Away, Spells


class Transfer(NamedTuple):
    """What became of one message."""

    arrivals_s: tuple[float, ...]  # of each copy that came; the first is the message, the others are duplicates of it
    free_s: float  # from when on the link takes the next
    tries: int  # how often it was sent


@dataclass(frozen=True)
class EventLog:
    """Writes the lines in the order of the simulation, which is not the order of all their times.

    Most are of gradients, messages and steps, so these are put together here: the bytes are those of `json.dumps`,
    which takes five times as long.
    """

    file: TextIO

    def begin(self, nodes: int) -> None:
        """The first line."""
        self.write("run", nodes=nodes)

    def gradient(self, node: int, number: int, from_s: float, until_s: float) -> None:
        """A gradient was begun."""
        times = f'"from_s":{_number(from_s)},"until_s":{_number(until_s)}'
        self.file.write(f'{{"event":"gradient","node":{node},"number":{number},{times}}}\n')

    def message(self, sender: int, receiver: int, number: int, at_s: float, found: Transfer) -> None:
        """A message left, as soon as its link was free."""
        where = f'"from":{sender},"to":{receiver},"number":{number},"at_s":{_number(at_s)},"tries":{found.tries}'
        times = f'"arrivals_s":[{",".join(map(_number, found.arrivals_s))}],"free_s":{_number(found.free_s)}'
        self.file.write(f'{{"event":"message",{where},{times}}}\n')

    def taken(self, node: int, at_s: float, steps: Mapping[int, int]) -> None:
        """A node has looked at what was pushed: by sender, the step of it."""
        pushes = ",".join([f'"{sender}":{step}' for sender, step in steps.items()])
        self.file.write(f'{{"event":"taken","node":{node},"at_s":{_number(at_s)},"pushes":{{{pushes}}}}}\n')

    def step(self, node: int, at_s: float) -> None:
        """A node has made a step."""
        self.file.write(f'{{"event":"step","node":{node},"at_s":{_number(at_s)}}}\n')

    def length(self) -> int:
        """How long the log is."""
        self.file.flush()
        return self.file.tell()

    def cut_back(self, length: int) -> None:
        """Go on behind what the log was so long.

        Raises:
            ConfigError: it is shorter.
        """
        if (found := self.file.seek(0, SEEK_END)) < length:
            raise ConfigError(
                f"the event log has {found} bytes, and had {length} when the checkpoint was written; required: the "
                "events.jsonl of its run, which it goes on with"
            )
        self.file.seek(length)
        self.file.truncate()

    def write(self, event: str, **told: Any) -> None:
        """Any line."""
        self.file.write(json.dumps({"event": event, **told}, separators=(",", ":"), allow_nan=False) + "\n")


@dataclass(frozen=True)
class Recorded:
    """The times of an earlier run.

    Attributes:
        source: the file, as an error names it.
    """

    source: str
    nodes: int
    gradients: dict[tuple[int, int], tuple[float, float]]
    messages: dict[tuple[int, int, int], Transfer]
    away: dict[int, Sequence[Away]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Recorded":
        """The log in a file.

        Raises:
            ConfigError: it cannot be read, or is no such log.
        """
        try:
            with path.open(encoding="utf-8") as file:
                return cls.of(str(path), file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}; required: the events.jsonl of a run") from error

    @classmethod
    def of(cls, source: str, lines: Iterable[str]) -> "Recorded":
        """The log in some lines."""
        made: Recorded | None = None
        ends: dict[tuple[int, str], list[float]] = {}
        for number, line in enumerate(lines, 1):
            try:
                told = json.loads(line)
                if made is None:
                    made = cls(source, told["nodes"], {}, {})
                made._take(told, ends)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{source}:{number}: no line of an event log of a simulated run") from error
        if made is None:
            raise ConfigError(f"{source} is empty; required: the events.jsonl of a run")
        for (node, rejoin), known in ends.items():
            made.away[node] = [*made.away.get(node, ()), Away(Spells(known), "neighbor" if rejoin != "own" else "own")]
        return made

    def _take(self, told: dict[str, Any], ends: dict[tuple[int, str], list[float]]) -> None:
        match told["event"]:
            case "gradient":
                self.gradients[told["node"], told["number"]] = float(told["from_s"]), _read(told["until_s"])
            case "message":
                arrivals = tuple(_read(each) for each in told["arrivals_s"])
                found = Transfer(arrivals, _read(told["free_s"]), told["tries"])
                self.messages[told["from"], told["to"], told["number"]] = found
            case "down" | "up":
                ends.setdefault((told["node"], told["rejoin"]), []).append(float(told["at_s"]))

    def gradient_until_s(self, node: int, number: int, at_s: float) -> float:
        """When a node's gradient was there.

        Raises:
            ConfigError: it was not begun at this time, or not at all.
        """
        what = f"gradient {number} of node {node}"
        from_s, until_s = self.gradients.get((node, number)) or self._missing(what)
        if from_s != at_s:
            raise self._other(f"{what} is begun at {at_s:g} s, and was at {from_s:g} s")
        return until_s

    def transfer(self, sender: int, receiver: int, number: int, at_s: float) -> Transfer:
        """What became of a message.

        Raises:
            ConfigError: it was sent later, or not at all.
        """
        what = f"message {number} from node {sender} to node {receiver}"
        found = self.messages.get((sender, receiver, number)) or self._missing(what)
        if found.arrivals_s[0] < at_s:
            raise self._other(f"{what} is sent at {at_s:g} s, and came at {found.arrivals_s[0]:g} s")
        return found

    def _missing(self, what: str) -> Any:
        raise self._other(f"it has no {what}")

    def _other(self, how: str) -> ConfigError:
        return ConfigError(
            f"{self.source} is of another run: {how}; replay it with the experiment, the method and the seed of its run"
        )


@lru_cache(256)  # neighbors are sent to at one time, and what ends then begins the next
def _number(at_s: float) -> str:
    return float.__repr__(at_s) if at_s < inf else "null"


def _read(at_s: float | None) -> float:
    return inf if at_s is None else float(at_s)
