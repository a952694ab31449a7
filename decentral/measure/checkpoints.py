"""The checkpoints of a run: one folder for each round, whole once its manifest is there.

    RUN/checkpoints/round-00000120/node-I.safetensors   the tensors of a node
                                   node-I.json          its numbers
                                   metrics.jsonl        the run's, until then; beside node 0's files
                                   manifest.json        a SHA-256 for each of these, written last

Every file is written under a temporary name, flushed, renamed, and its name flushed. On several machines without a
shared disk each has its own nodes' files and the whole manifest.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from decentral.errors import ConfigError
from decentral.measure.atomic import flush_folder, write_durably
from decentral.measure.comparison import Clock, Document
from decentral.training.checkpoint import Snapshot

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
_NAME = re.compile(r"round-(\d{8,})")


class Entry(Document):
    """What a file of a checkpoint must be."""

    sha256: str
    bytes: int


class Manifest(Document):
    """What a checkpoint is of, and which files it has."""

    format: Literal[1] = 1
    round: int
    """Rounds completed."""
    nodes: int
    seed: int
    clock: Clock
    """none where any part of the run was simulated: its seconds say nothing."""
    data: int
    """CRC of all samples."""
    versions: dict[str, str]
    experiment: dict[str, Any]
    """Resolved, as in config.json."""
    files: dict[str, Entry] = Field(default_factory=dict)

    def content(self) -> bytes:
        """As a file, with a digest of its own."""
        body = self.model_dump(mode="json")
        return (json.dumps({"sha256": _digest(_canonical(body)), "manifest": body}, indent=1) + "\n").encode()


class Checkpoints:
    """The checkpoints in a run's folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def of(self, round: int) -> Path:
        """The folder of a round."""
        return self.folder / name_of(round)

    def rounds(self) -> list[int]:
        """The rounds with a manifest, ascending."""
        return sorted(round for round, folder in self._folders() if (folder / MANIFEST).exists())

    def _folders(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        matches = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return [(int(match[1]), path) for match, path in matches if match]

    def open(self, round: int) -> Path:
        """The folder of a round, ready to be written; what it has from another attempt is no checkpoint any more."""
        folder = self.of(round)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            flush_folder(self.folder)
            flush_folder(self.folder.parent)
        return folder

    def write(self, round: int, snapshots: Mapping[int, Snapshot], metrics: bytes | None) -> dict[str, Entry]:
        """Write some nodes' files, durably; what the manifest must say of them.

        Args:
            metrics: the run's metrics so far, from the process that hosts node 0.
        """
        folder = self.open(round)
        entries = {} if metrics is None else {METRICS: _written(folder / METRICS, metrics)}
        for node, snapshot in snapshots.items():
            tensors = {name: tensor.cpu() for name, tensor in snapshot.tensors.items()}
            numbers = json.dumps(snapshot.numbers(), indent=1, allow_nan=False).encode()
            for name, content in zip(_names(node), (save(_apart(tensors)), numbers), strict=True):
                entries[name] = _written(folder / name, content)
        return entries

    def finish(self, round: int, manifest: bytes, keep: int) -> None:
        """Make a round's checkpoint whole, and then remove all but the newest `keep`; no matter if it is whole."""
        path = self.of(round) / MANIFEST
        if path.exists() and path.read_bytes() == manifest:
            return
        write_durably(path, manifest)
        whole = [other for other in self.rounds() if other <= round]
        for other, folder in self._folders():
            if other < round and other not in whole[-keep:]:
                _remove(folder)

    def discard_after(self, round: int) -> None:
        """Remove the checkpoints of later rounds: the run goes on from here."""
        for other, folder in self._folders():
            if other > round:
                _remove(folder)

    def choose(self, wanted: str | None) -> int:
        """The round to go on from: the newest, or the one that was named.

        Raises:
            ConfigError: there is no such checkpoint.
        """
        rounds = self.rounds()
        if wanted is None:
            if not rounds:
                raise ConfigError(f"{self.folder} holds no whole checkpoint; nothing can be resumed from it")
            return rounds[-1]
        for round in rounds:
            if wanted in (f"round-{round}", name_of(round), str(round)):
                return round
        known = ", ".join(f"round-{round}" for round in rounds) or "none"
        raise ConfigError(f"{self.folder} has no checkpoint {wanted!r}; whole ones: {known}")

    def manifest(self, round: int) -> Manifest:
        """The manifest of a round.

        Raises:
            ConfigError: it is missing, torn, changed, or not a manifest.
        """
        path = self.of(round) / MANIFEST
        try:
            document = json.loads(path.read_bytes())
            expected, found = document["sha256"], _digest(_canonical(document["manifest"]))
            manifest = Manifest.model_validate(document["manifest"])
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}){self._instead(round)}") from error
        except (ValueError, TypeError, KeyError) as error:
            kind = "not a manifest" if isinstance(error, ValidationError) else "torn or foreign"
            raise ConfigError(f"{path}: {kind}, and no checkpoint without it{self._instead(round)}") from error
        if expected != found or manifest.round != round:
            raise ConfigError(
                f"{path}: changed since it was written (sha256 {found}, required {expected}){self._instead(round)}"
            )
        return manifest

    def verify(self, manifest: Manifest, nodes: Iterable[int]) -> None:
        """Read the files of some nodes and compare them with the manifest.

        Raises:
            ConfigError: the first file that is missing or has other content, with both digests.
        """
        for node in nodes:
            for name in (*_names(node), *([METRICS] if node == 0 else [])):
                self._content(manifest, name)

    def snapshot(self, manifest: Manifest, node: int) -> Snapshot:
        """A node as it was.

        Raises:
            ConfigError: a file of it is missing, changed or foreign.
        """
        stored, numbers = (self._content(manifest, name) for name in _names(node))
        path = self.of(manifest.round) / _names(node)[0]
        try:
            return Snapshot.of(json.loads(numbers), load(stored))
        except (ValueError, TypeError, KeyError, SafetensorError) as error:
            raise ConfigError(
                f"{path}: not what a checkpoint holds ({error}){self._instead(manifest.round)}"
            ) from error

    def metrics(self, manifest: Manifest) -> bytes:
        """The run's metrics until then.

        Raises:
            ConfigError: the file is missing or changed.
        """
        return self._content(manifest, METRICS)

    def _content(self, manifest: Manifest, name: str) -> bytes:
        path = self.of(manifest.round) / name
        try:
            expected = manifest.files[name]
            content = path.read_bytes()
        except KeyError as error:
            raise ConfigError(f"{path.with_name(MANIFEST)}: does not list {name}") from error
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); sha256 {expected.sha256} is required"
            raise ConfigError(f"{path}: {problem}{self._instead(manifest.round)}") from error
        if (found := _digest(content)) != expected.sha256:
            raise ConfigError(
                f"{path}: torn or changed: sha256 {found} of {len(content)} bytes, required {expected.sha256} of "
                f"{expected.bytes}{self._instead(manifest.round)}"
            )
        return content

    def _instead(self, bad: int) -> str:
        """What to do: the newest other checkpoint that is whole."""
        for round in reversed([round for round in self.rounds() if round != bad]):
            if self._is_whole(round):
                return f"; round-{round} is whole: --from round-{round} goes on from there"
        return "; there is no other whole checkpoint"

    def _is_whole(self, round: int) -> bool:
        """Whether all files of a round that are on this machine are as they were written, and node 0's are there."""
        try:
            document = json.loads((self.of(round) / MANIFEST).read_bytes())
            manifest = Manifest.model_validate(document["manifest"])
            if document["sha256"] != _digest(_canonical(document["manifest"])):
                return False
            return all(_digest((self.of(round) / n).read_bytes()) == e.sha256 for n, e in manifest.files.items())
        except (OSError, ValueError, TypeError, KeyError):
            return False


def name_of(round: int) -> str:
    """`round-00000120`."""
    return f"round-{round:08d}"


def _names(node: int) -> tuple[str, str]:
    return f"node-{node}.safetensors", f"node-{node}.json"


def _written(path: Path, content: bytes) -> Entry:
    write_durably(path, content)
    return Entry(sha256=_digest(content), bytes=len(content))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, none sharing memory with another, as safetensors asks."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return apart


def _remove(folder: Path) -> None:
    """Remove a checkpoint: first it stops being whole, then its files go. Another rank may do the same meanwhile."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
            path.unlink(missing_ok=True)
        folder.rmdir()
    flush_folder(folder.parent)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
