"""The record of one run, in a folder of its own: what was run, with what, what came of it, and the final models."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from re import sub
from typing import Any

from safetensors.torch import save
from torch import nn

from decentral import __version__
from decentral.config import Experiment
from decentral.errors import ConfigError
from decentral.measure.atomic import write_atomically
from decentral.measure.comparison import Evaluation, Network, TopologySummary
from decentral.methods import ResolvedMethod
from decentral.topology.analysis import averaged
from decentral.topology.effective_neighbors import effective_neighbors
from decentral.topology.spectrum import EXACT_NODES
from decentral.topology.topology import Topology

PACKAGES = ("torch", "numpy", "networkx", "scipy", "pydantic", "safetensors", "scikit-learn")
GAMMA = 0.9
"""At which the effective number of neighbors is told: what a node hears counts for about ten rounds."""
NETWORK_VARIABLE = "NETLAB_LINK"


def new_folder(out: Path | None, name: str) -> Path:
    """The folder of a new run: `out`, or `runs/<name>-<time>`.

    Raises:
        ConfigError: it exists and is not an empty folder, or cannot be made.
    """
    now = datetime.now(UTC)
    folder = out or Path("runs") / f"{name}-{now:%Y%m%d-%H%M%S-%f}"[:-3]
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; give a folder with --out")
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} exists and is not empty; give another folder with --out, or move it away")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "started.json").open("x") as claim:  # only one of two commands at the same moment gets it
            claim.write(json.dumps({"started": now.isoformat()}) + "\n")
    except FileExistsError as error:
        raise ConfigError(f"another command has just begun in {folder}; give another folder with --out") from error
    except OSError as error:
        raise ConfigError(f"cannot make the run folder {folder}: {error.strerror}; give another with --out") from error
    return folder


def folder_of(index: int, label: str) -> str:
    """The name of a method's folder in a comparison: `00-dsgd-ring` for the first, dsgd ring."""
    return f"{index:02d}-{sub('[^A-Za-z0-9=.]+', '-', label).strip('.-')}"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within it no other command may run in the folder; the claim ends with the process, however that ends.

    Raises:
        ConfigError: another command runs there, or it is no run folder.
    """
    try:
        with (folder / "started.json").open("r+") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except FileNotFoundError as error:
        if error.filename != str(folder / "started.json"):
            raise
        raise ConfigError(f"{folder} is no run folder: it has no started.json") from error
    except BlockingIOError as error:
        raise ConfigError(f"another command runs in {folder}; wait for its end, or stop it") from error


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {"decentral": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"platform": platform.platform(), "cores": str(os.cpu_count())}


def network() -> Network | None:
    """The network lab that this process runs in, which tells it by a variable of the environment."""
    told = os.environ.get(NETWORK_VARIABLE)
    return None if told is None else Network.model_validate_json(told)


def summary_of(topology: Topology) -> TopologySummary:
    """The graph and its weights, the mean over a schedule's turns, as a document."""
    mean, gap = averaged(topology)
    rows = [mean.row(node).weights for node in range(topology.nodes)]
    known = topology.schedule.kind != "column-stochastic" and topology.nodes <= EXACT_NODES
    neighbors = effective_neighbors(topology).at(GAMMA) if known else None
    return TopologySummary(
        nodes=topology.nodes,
        edges=[(i, j, (rows[i].get(j, 0.0) + rows[j].get(i, 0.0)) / 2) for i, j in topology.edges],
        self_weights=[row[node] for node, row in enumerate(rows)],
        spectral_gap=gap,
        max_degree=max((len(topology.neighbors(node)) for node in range(topology.nodes)), default=0),
        effective_neighbors=neighbors and neighbors.mean,
    )


def describe_run(
    folder: Path, experiment: Experiment, method: ResolvedMethod, seed: int, topology: Topology | None
) -> None:
    """Write `config.json`, `versions.json` and `topology.json`: all that the run depends on."""
    shared = experiment.model_dump(mode="json", exclude={"compare", "baselines", "tune"})
    own = {
        "label": method.label,
        "algorithm": method.algorithm.model_dump(mode="json"),
        "topology": method.topology.model_dump(mode="json"),
        "optimizer": method.optimizer.model_dump(mode="json"),
        "seed": seed,
    }
    write_json(folder / "config.json", shared | own)
    write_json(folder / "versions.json", versions())
    if topology is not None:
        write_json(folder / "topology.json", {"name": topology.name} | summary_of(topology).model_dump(mode="json"))


class Metrics:
    """A run's `metrics.jsonl`: one line per evaluation, on disk as soon as it is known."""

    def __init__(self, folder: Path, earlier: Sequence[Evaluation] = ()) -> None:
        self._path = folder / "metrics.jsonl"
        self.rows = list(earlier)  # what a run that goes on has on disk already
        self.records = False
        """Whether this process has recorded, and so has all rows."""

    def __call__(self, row: Evaluation) -> None:
        if not self.records:
            self.records = True
            if not self.rows and self._path.exists():
                self._take_over()
                if self.rows and self.rows[-1].round == row.round:  # its last act
                    return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(row.model_dump_json() + "\n")
        self.rows.append(row)

    def _take_over(self) -> None:
        """Go on after a node that recorded until it died, maybe in the midst of a line."""
        self.rows = rows_in(self._path)
        write_atomically(self._path, "".join(row.model_dump_json() + "\n" for row in self.rows).encode())


def rows_in(path: Path) -> list[Evaluation]:
    """The evaluations in a `metrics.jsonl`, of which a death may have cut the last."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Evaluation.model_validate_json(line) for line in lines if line.endswith("\n")]


def save_model(folder: Path, node: int, module: nn.Module) -> Path:
    """Write a node's final model: every parameter and buffer under its own name, as safetensors."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    path = models / f"node-{node}.safetensors"
    write_atomically(path, save(tensors, metadata={"format": "pt"}))
    return path
