"""The whole experiment, and the sections that belong to no part of it alone."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from decentral.config.algorithms import DDP, Algorithm, AllReduceSGD, Optimizer
from decentral.config.clock import Clock, SlowTime
from decentral.config.data import Data, Model, Partition, Shift
from decentral.config.section import Named, Section
from decentral.config.topology import Topology


class Transport(Section):
    """How messages travel: one link per edge of the graph."""

    name: Literal["auto", "gloo", "shared-memory", "mpi", "nccl"] = "auto"
    """auto, edge by edge: NCCL between different GPUs; shared memory on one host; else MPI under mpirun, or gloo."""
    timeout_s: float = Field(30.0, gt=0, le=86_400)
    """How long a node waits for a neighbor in one exchange before it gives up (exit code 4)."""
    connect_timeout_s: float = Field(120.0, gt=0, le=86_400)
    """How long the processes wait for each other at the start."""
    interface: str | None = None
    """Network interface for gloo to listen on, such as eth0; its own choice unless given."""
    survive: bool = False
    """Whether `train` goes on without a node whose process dies: token methods, over gloo and shared memory.

    `train --nproc` then starts each process so that the death of one does not end the others.
    """


class Checkpoint(Section):
    """Checkpoints of `train` and `simulate`, from which --resume goes on; `speedup` and DDP write none."""

    every: int | None = Field(None, ge=1)
    """Rounds between checkpoints, the last round's among them; without it only SIGTERM and SIGUSR1 ask for one.

    Of asynchronous methods, which stop for it, steps of each node; where they run for duration_s, give every_s.
    """
    every_s: float | None = Field(None, gt=0)
    """Seconds, by the clock of the run, from one checkpoint to the next, of asynchronous methods that run for a time.

    Nodes end the step that they are at, so it takes that much longer.
    """
    keep: int = Field(3, ge=1)
    """How many to keep; older ones are removed once a new one is whole and on the disk."""


class Tune(Section):
    """How `speedup --tune` chooses each method's learning rate: the best of a grid, on samples that are set aside.

    Best is the highest accuracy of the averaged model after the last round, then the lower loss, then the lower rate;
    without classes it is the lower loss. The test set is not looked at.
    """

    lr: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)
    """The grid: learning rates in place of every method's `optimizer.lr`."""
    validation: float = Field(0.2, gt=0, lt=1)
    """Share of the training samples that are set aside, before the rest are dealt to the nodes."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Of the runs that try the rates; the first of `seeds` unless given."""
    rounds: int | None = Field(None, ge=1)
    """Of the same runs; as many as the experiment's unless given."""


class Method(Section):
    """A method to compare: what it names replaces that section of the experiment, whole."""

    label: str | None = Field(None, min_length=1, max_length=60)
    """Name in tables; built from the algorithm and the topology unless given."""
    algorithm: Algorithm | None = None
    topology: Annotated[Topology, Named] | None = None
    optimizer: Annotated[Optimizer, Named] | None = None


class Experiment(Section):
    """One experiment: what is learned, by whom, how, and what it is compared with."""

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run folder: letters, digits, dot, dash and underscore."""
    nodes: int = Field(ge=1, le=100_000)
    """Number of nodes; on real processes, one rank per node."""
    rounds: int = Field(ge=1, le=10**9)
    """Rounds to train; in a round every node takes one step."""
    batch_size: Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = 32
    """Samples per node and step; a list has one number for each node."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([0], min_length=1)
    """Seeds of `speedup`, one run each; `train` and `simulate` use the first."""
    evaluate_every: int = Field(10, ge=1)
    """Rounds between evaluations on the test set; they are not counted as training time."""
    duration_s: float | None = Field(None, gt=0)
    """How long asynchronous methods run, by the clock of the run; `rounds` steps of each node unless given."""
    evaluate_every_s: float | None = Field(None, gt=0)
    """Seconds between their evaluations where they run for a time; a twentieth of it unless given."""
    diagnostics: list[Literal["gradients", "predictions", "edges"]] = Field(["gradients", "predictions"])
    """What evaluations measure beside scores and consensus distance, off the training clock; [] for nothing.

    gradients: heterogeneity and diversity of the nodes' gradients, one on up to 256 samples of each node, and one more
    mean over all nodes. predictions: where nodes disagree with the averaged model. edges: a bound on the consensus
    distance from neighbors' differences; between processes it costs one more mean for every node.
    """
    target: float | None = None
    """Score that counts as reached once every node's own model has it: accuracy; for regression, test loss at most."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and samples."""
    device: str = Field("cpu", pattern=r"^(cpu|auto|cuda(:\d+)?)$")
    """Where each rank computes: cpu; cuda, the GPU of its local rank; cuda:N; or auto, a GPU where there is one."""
    threads: int = Field(1, ge=1, le=256)
    """Threads of torch per node; the same in train and simulate, since the last bits of a sum depend on it."""
    data: Data
    partition: Partition | None = None
    """How samples are dealt to nodes: iid unless given. Data that is split by nature takes none."""
    shift: Shift | None = None
    """Feature shift: how each node sees the samples that it holds, whatever the partition; as they are unless given."""
    model: Model
    optimizer: Annotated[Optimizer, Named] = Optimizer()
    algorithm: Algorithm
    topology: Annotated[Topology, Named]
    compare: list[Method] = Field([])
    """Further methods that `speedup` runs beside the file's own."""
    baselines: list[Method] = Field(
        [Method(algorithm=AllReduceSGD(name="allreduce")), Method(algorithm=DDP(name="ddp"))]
    )
    """Centralized methods that `speedup` compares with."""
    tune: Tune | None = None
    """Learning rates that `speedup --tune` chooses from, for each method its own; nothing else reads it."""
    transport: Annotated[Transport, Named] = Transport()
    clock: Clock | None = None
    """Virtual time in the simulators, which have none unless this is given; real processes have the wall's."""
    stragglers: list[SlowTime] = Field([])
    """Nodes that are slower than they could be, of real processes too: they sleep after each gradient.

    A gradient on a real process takes as many times as long as it took by the wall clock. With every_s and lasting_s
    spells begin at random, drawn from the seed, the same ones in simulated runs with a clock. With cpu a process does
    not sleep: the operating system gives it that share of one core.
    """
    least_gradient_s: float | None = Field(None, gt=0)
    """Seconds that each gradient takes at least on real processes, whose nodes sleep for the rest: so that more of them
    than there are cores do not wait for a core. Stragglers are slower than this; simulated runs have clock.gradient_s.
    """
    checkpoint: Checkpoint = Checkpoint()
    """When a run is checkpointed, and how many checkpoints are kept."""
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The experiment file's folder: relative paths in the file start there."""
        return self._folder
