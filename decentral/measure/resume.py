"""Go on with a run from a checkpoint: the same experiment, the same bits."""

import json
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decentral.config import Checkpoint, Experiment, KeyPath
from decentral.config.rates import needs_rounds
from decentral.errors import ConfigError
from decentral.measure.atomic import write_atomically
from decentral.measure.checkpoints import METRICS, Checkpoints, Manifest
from decentral.measure.comparison import DOCUMENT, Clock, Evaluation
from decentral.measure.prepared import Prepared
from decentral.measure.record import describe_run, versions
from decentral.measure.saving import Keeping, Resumed

FREE = ("name", "rounds", "transport", "checkpoint", "compare", "baselines", "seeds", "diagnostics", "tune")
"""Keys of an experiment that may differ where a run goes on; the first seed may not, and rounds only grow."""
_ABSENT = object()


@dataclass(frozen=True)
class Origin:
    """The run and the checkpoint that `--resume RUN --from round-N` name; the newest checkpoint unless named."""

    run: Path
    wanted: str | None = None

    @property
    def options(self) -> list[str]:
        return ["--resume", str(self.run), *(["--from", self.wanted] if self.wanted else [])]


def chosen(origin: Origin) -> Origin:
    """The origin with its checkpoint named.

    Raises:
        ConfigError: no such run folder or checkpoint.
    """
    if not origin.run.is_dir():
        raise ConfigError(f"--resume {origin.run}: no such run folder")
    return Origin(origin.run, f"round-{Checkpoints(origin.run).choose(origin.wanted)}")


def checked(origin: Origin, experiment: Experiment, ready: Prepared, nodes: Iterable[int]) -> Manifest:
    """The manifest that a run goes on from, once all of it fits: the files of some nodes, the experiment, the data.

    Raises:
        ConfigError: a file is missing, torn or changed, or the experiment is another one; the key is named.
    """
    checkpoints = Checkpoints(origin.run)
    manifest = checkpoints.manifest(checkpoints.choose(origin.wanted))
    _check_same(manifest, experiment, ready)
    checkpoints.verify(manifest, nodes)
    now = versions()
    for package in ("torch", "numpy"):
        if (before := manifest.versions.get(package)) != now.get(package):
            found = f"{package} {now.get(package)} here, {before} where the checkpoint was written"
            warnings.warn(f"{found}: the run may differ in its last bits from one that was never stopped", stacklevel=2)
    return manifest


def keeping(
    run: Path, experiment: Experiment, ready: Prepared, clock: Clock, command: str, origin: Origin | None = None
) -> Keeping | None:
    """How a run is checkpointed in its folder, and where it goes on; None for DDP and for what survives deaths.

    Raises:
        ConfigError: one of these, which write no checkpoints, is to be checkpointed or resumed.
    """
    section = experiment.checkpoint
    if ready.algorithm is not None:
        _refuse_other_unit(section, ready)
    if clock == "wall" and experiment.transport.survive:
        if origin is not None:
            raise ConfigError(
                "--resume with survive, which writes no checkpoints; leave survive out",
                (*experiment.transport.path, "survive"),
            )
        return None
    if ready.algorithm is None:
        if section.every is not None or section.every_s is not None or origin is not None:
            problem = "DDP runs are neither checkpointed nor resumed; remove it, or use algorithm: allreduce"
            raise ConfigError(problem, section.path or ready.method.algorithm.path)
        return None
    manifest = Manifest(
        round=0,
        nodes=experiment.nodes,
        seed=ready.task.seed,
        clock=clock,
        data=ready.task.fingerprint,
        versions=versions(),
        experiment=experiment.model_dump(mode="json"),
    )
    resume = shlex.join(["--resume", str(run)])
    return Keeping(run, experiment.checkpoint, manifest, experiment.rounds, f"{command} {resume}")


def _refuse_other_unit(section: Checkpoint, ready: Prepared) -> None:
    """Raise ConfigError where checkpoints are to come after steps and the run lasts for a time, or the other way."""
    if section.every is not None and ready.is_timed:
        raise ConfigError(
            f"found every: {section.every}; {ready.label} runs for duration_s, in which each node makes as many steps "
            "as it can: give every_s, the seconds from one checkpoint to the next",
            (*section.path, "every"),
        )
    if section.every_s is not None and not ready.is_timed:
        how = "makes `rounds` steps at each node, since there is no duration_s" if ready.is_free else "runs in rounds"
        raise ConfigError(
            f"found every_s: {section.every_s:g}; {ready.label} {how}: give every, their number from one checkpoint to "
            "the next",
            (*section.path, "every_s"),
        )


def resumed(
    plan: Keeping, origin: Origin, experiment: Experiment, ready: Prepared, hosted: Iterable[int], command: str
) -> Keeping:
    """The plan of a run that goes on; its folder is cut back to the checkpoint, each process cutting what it wrote.

    Raises:
        ConfigError: a file has changed since it was checked.
    """
    checkpoints = Checkpoints(plan.run)
    manifest = checkpoints.manifest(checkpoints.choose(origin.wanted))
    hosted = list(hosted)
    snapshots = {node: checkpoints.snapshot(manifest, node) for node in hosted}
    rows: list[Evaluation] = []
    text = checkpoints.metrics(manifest).decode() if 0 in hosted else ""
    checkpoints.discard_after(manifest.round)
    for node in hosted:
        (plan.run / "models" / f"node-{node}.safetensors").unlink(missing_ok=True)  # of a run that is not the whole
    if 0 in hosted:
        rows = [Evaluation.model_validate_json(line) for line in text.splitlines()]
        rows = [row for row in rows if ready.is_timed or _belongs(row, experiment)]
        write_atomically(plan.run / METRICS, "".join(row.model_dump_json() + "\n" for row in rows).encode())
        (plan.run / DOCUMENT).unlink(missing_ok=True)
        describe_run(plan.run, experiment, ready.method, ready.task.seed, ready.topology)
        _note(plan.run, manifest.round, command)
    clock: Clock = manifest.clock if manifest.clock == plan.manifest.clock else "none"
    return Keeping(
        plan.run,
        plan.section,
        plan.manifest.model_copy(update={"clock": clock}),
        plan.rounds,
        plan.command,
        Resumed(manifest, snapshots, rows),
    )


def _belongs(row: Evaluation, experiment: Experiment) -> bool:
    """Whether a run of so many rounds evaluates here: not after what was the last round when there were fewer."""
    return row.round % experiment.evaluate_every == 0 or row.round == experiment.rounds


def _note(run: Path, round: int, command: str) -> None:
    line = {"from_round": round, "at": datetime.now(UTC).isoformat(), "command": command, "versions": versions()}
    with (run / "resumed.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _check_same(manifest: Manifest, experiment: Experiment, ready: Prepared) -> None:
    own = experiment.model_dump(mode="json")
    for path, before, now in _differences(manifest.experiment, own):
        if path[0] in FREE:
            continue
        found, required = ("nothing" if value is _ABSENT else json.dumps(value) for value in (now, before))
        raise ConfigError(
            f"found {found}; the checkpoint has {required}, and only rounds and transport may change", path
        )
    if manifest.seed != ready.task.seed:
        raise ConfigError(f"found first seed {ready.task.seed}; the checkpoint has {manifest.seed}", ("seeds", 0))
    if manifest.round > experiment.rounds and not ready.is_timed:
        raise ConfigError(
            f"found {experiment.rounds}; the checkpoint is of round {manifest.round}, and as many are required",
            ("rounds",),
        )
    if needs_rounds(ready.method.optimizer.schedule) and manifest.experiment["rounds"] != experiment.rounds:
        raise ConfigError(
            f"found {experiment.rounds}; the checkpoint has {manifest.experiment['rounds']}, by whose end its learning "
            "rate has fallen: a run that is to grow gives optimizer.schedule.rounds from its beginning",
            ("rounds",),
        )
    if manifest.data != ready.task.fingerprint:
        raise ConfigError("the samples are not those that the checkpoint was trained on", ("data",))


def _differences(before: Any, now: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key, _ABSENT), now.get(key, _ABSENT), (*path, key))
    elif before != now:
        yield path, before, now
