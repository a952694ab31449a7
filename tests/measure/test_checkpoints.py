"""The files of checkpoints: nothing but a whole one is ever resumed from, whatever happens and whenever."""

import builtins
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decentral.errors import ConfigError
from decentral.measure.checkpoints import Checkpoints
from tests.measure.test_resume import NODES, Place, metrics, models


class KilledError(BaseException):
    """Stands for SIGKILL: no handler that a program has for its own errors sees it."""


class Guillotine:
    """Counts what asks the operating system to change a file, and ends the program before the n-th of them."""

    CALLS = ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir")

    def __init__(self, patch: pytest.MonkeyPatch, inside: Path, after: int) -> None:
        self.left, self.count, self._inside = after, 0, str(inside)
        for name in self.CALLS:
            patch.setattr(os, name, self._guarded(getattr(os, name)))
        opened = io.open

        def guarded_open(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if self._inside in str(file) and set(mode) & set("wax+"):
                self._fall()
                made = opened(file, mode, *more, **options)
                write = made.write
                return _Torn(made, write, self._fall)
            return opened(file, mode, *more, **options)

        patch.setattr(io, "open", guarded_open)
        patch.setattr(builtins, "open", guarded_open)

    def _fall(self) -> None:
        self.count += 1
        if self.count > self.left:
            raise KilledError

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], int) or self._inside in os.fspath(arguments[0]):
                self._fall()
            return call(*arguments, **options)

        return guarded


class _Torn:
    """A file of which half is written when the guillotine falls in the middle of a write."""

    def __init__(self, file: Any, write: Callable[..., Any], fall: Callable[[], None]) -> None:
        self._file, self._write, self._fall = file, write, fall

    def write(self, content: bytes) -> int:
        try:
            self._fall()
        except KilledError:
            self._write(content[: len(content) // 2])
            self._file.close()
            raise
        return int(self._write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *what: object) -> None:
        self._file.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Path]:
    """A run of 14 rounds with checkpoints of rounds 5, 10 and 14."""
    place = Place(tmp_path_factory.mktemp("finished"))
    return place, place.simulate("whole")


@pytest.fixture
def run(finished: tuple[Place, Path], tmp_path: Path) -> tuple[Place, Path]:
    """A copy to be damaged."""
    _, whole = finished
    shutil.copytree(whole, tmp_path / "run")
    return Place(tmp_path), tmp_path / "run"


def test_a_kill_between_any_two_operations_leaves_the_checkpoint_before(
    finished: tuple[Place, Path], tmp_path: Path
) -> None:
    """From round 5 to round 10 with one checkpoint kept: writing, renaming, making whole and removing, all of it."""
    place, whole = Place(tmp_path), finished[1]
    first = place.simulate("first", rounds=5, checkpoint={"every": 5, "keep": 1})
    newest = set()
    for after in range(1000):
        run = tmp_path / f"killed-{after}"
        shutil.copytree(first, run)
        with pytest.MonkeyPatch.context() as patch:
            guillotine = Guillotine(patch, run / "checkpoints", after)
            try:
                place.simulate(run.name, resume="", rounds=10, checkpoint={"every": 5, "keep": 1})
                break
            except KilledError:
                pass
        left = Checkpoints(run)
        for round in left.rounds():  # what passes for whole is whole, the one that is being removed too
            left.verify(left.manifest(round), range(NODES))
        newest.add(left.rounds()[-1])
        place.simulate(run.name, resume="", rounds=14)
        assert models(run) == models(whole)
        assert metrics(run) == metrics(whole)
        shutil.rmtree(run)
    assert newest == {5, 10}
    assert guillotine.count == after > 40


def test_the_last_k_are_kept(tmp_path: Path) -> None:
    run = Place(tmp_path).simulate("run", checkpoint={"every": 2, "keep": 2})
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["round-00000012", "round-00000014"]
    leftovers = [path for path in run.rglob("*") if ".tmp" in path.name]
    assert leftovers == []


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def tampered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    path.write_bytes(b'{"something": "else"}')


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [torn, tampered, foreign, missing])
@pytest.mark.parametrize("name", ["node-0.safetensors", "node-2.json", "metrics.jsonl", "manifest.json"])
def test_a_damaged_file_is_refused_by_name(name: str, damage: Callable[[Path], None], run: tuple[Place, Path]) -> None:
    place, folder = run
    damaged = folder / "checkpoints" / "round-00000014" / name
    damage(damaged)
    if (name, damage) == ("manifest.json", missing):
        assert Checkpoints(folder).rounds() == [5, 10]  # without it there is no checkpoint
        return
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError) as refused:
        place.simulate("run", resume="")
    told = str(refused.value)
    assert str(damaged) in told
    assert "round-10 is whole: --from round-10" in told
    if name != "manifest.json":
        manifest = json.loads(damaged.with_name("manifest.json").read_text())["manifest"]
        assert manifest["files"][name]["sha256"] in told
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert (folder / "models" / "node-0.safetensors").exists()


def test_another_runs_file_in_its_place_is_refused(run: tuple[Place, Path]) -> None:
    place, folder = run
    files = folder / "checkpoints" / "round-00000014"
    shutil.copy(files / "node-0.safetensors", files / "node-1.safetensors")
    with pytest.raises(ConfigError, match=r"node-1\.safetensors: torn or changed"):
        place.simulate("run", resume="")


def test_the_damaged_newest_is_passed_over_only_when_asked(run: tuple[Place, Path], finished: Any) -> None:
    place, folder = run
    for round in (10, 14):
        torn(folder / "checkpoints" / f"round-{round:08d}" / "node-1.json")
    with pytest.raises(ConfigError, match="round-5 is whole"):
        place.simulate("run", resume="")
    with pytest.raises(ConfigError, match="round-5 is whole"):
        place.simulate("run", resume="round-10")
    place.simulate("run", resume="round-5")
    assert models(folder) == models(finished[1])


@pytest.mark.parametrize("wanted", ["round-7", "seven", "../../etc"])
def test_an_unknown_checkpoint_gets_the_list(wanted: str, run: tuple[Place, Path]) -> None:
    with pytest.raises(ConfigError, match="whole ones: round-5, round-10, round-14"):
        Checkpoints(run[1]).choose(wanted)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no whole checkpoint"):
        Checkpoints(tmp_path).choose(None)


def test_each_nodes_files_lie_under_its_number(finished: tuple[Place, Path]) -> None:
    files = {path.name for path in (finished[1] / "checkpoints" / "round-00000010").iterdir()}
    of_nodes = {f"node-{node}.{kind}" for node in range(NODES) for kind in ("json", "safetensors")}
    assert files == of_nodes | {"manifest.json", "metrics.jsonl"}
