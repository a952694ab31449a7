"""What a comparison of methods found: one document, from which tables and reports are made."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

DOCUMENT = "comparison.json"
"""The document's file in a run folder."""

Clock = Literal["wall", "virtual", "none"]


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class NodeSpread(Document):
    """What the nodes' own accuracies range over."""

    min: float
    median: float
    max: float
    std: float
    """Of all nodes, not a sample's."""


class Control(Document):
    """What consensus control has done so far; the same at all nodes."""

    extra_steps: int
    """Gossip steps beyond the method's own."""
    exchanges: int
    """Exchanges of whole models for them, and to watch the distance where none was needed."""
    short: int
    """Rounds after which max_steps did not suffice."""
    bound: float | None
    """Upper bound on the consensus distance after the last controlled round; null where it is not finite."""


class FreeRun(Document):
    """How far the nodes of an asynchronous method had come, each at its own pace."""

    steps: list[int]
    """Made by each node so far."""
    staleness: list[list[int]]
    """Of each node, how often it has used something that was 0, 1, 2, ... steps old, up to where there was any; the
    128th place counts all that was older."""
    seconds: list[float] | None = None
    """Each node's own, for its steps so far; null in older records."""


class RestingToken(Document):
    """Where a token is at the end of a run."""

    number: int
    visit: int
    """How many it has made."""
    generation: int
    """0, and one more for each time that it was made anew from a copy."""
    holder: int
    digest: str
    """CRC-32 of what it carries, in hexadecimal digits."""


class Evaluation(Document):
    """One line of `metrics.jsonl`: the state of a run after a round."""

    round: int
    """Rounds completed."""
    seconds: float
    """Training seconds so far by the run's clock, evaluations not counted; the slowest node's."""
    loss: float | None
    """Mean over nodes of the last round's minibatch loss; null before the first round, and where it is not finite."""
    test_loss: float | None
    """Of the averaged model; null where it is not finite."""
    accuracy: float | None
    """Of the averaged model on the test set; null where the task has no classes."""
    node_accuracy: list[float | None] | None
    """Of each node's own model, on test samples as it sees them where `shift.test` says so; null for the dead."""
    node_test_loss: list[float | None]
    """null where it is not finite, and for the dead."""
    consensus_distance: float | None
    """sqrt(mean_i ||x_i - xbar||^2), Kong et al. 2021: exact, on real processes too, which average for evaluations."""
    distance_to_optimum: float | None
    """||xbar - x*|| of the averaged model, where the task knows its optimum x*; else null."""
    bytes_sent: list[int | None]
    """By each node so far, headers included; null for the dead, over whom no figure of this line goes."""
    accuracy_spread: NodeSpread | None = None
    """Over the nodes' own accuracies; null where the task has no classes."""
    heterogeneity: float | None = None
    """zeta^2 = mean_i ||g_i - g||^2 of the nodes' gradients at the averaged model, each on up to 256 of its samples."""
    gradient_diversity: float | None = None
    """mean_i ||g_i||^2 / ||g||^2 of the same gradients; 1 where all agree."""
    disagreement: float | None = None
    """Share of test predictions in which a node differs from the averaged model, the mean over nodes."""
    consensus_bound: float | None = None
    """Upper bound on the consensus distance from neighbors' differences alone; null unless diagnostics has edges."""
    control: Control | None = None
    """Of consensus-control; null for other methods."""
    free_run: FreeRun | None = None
    """Of asynchronous methods, whose `round` is the mean of their nodes' steps; null for others."""
    tokens: list[RestingToken] | None = None
    """Of a token method that is to survive deaths, on its last line; else null."""

    @property
    def living(self) -> list[int]:
        """The nodes that had not died."""
        return [node for node, sent in enumerate(self.bytes_sent) if sent is not None]

    @property
    def accuracies(self) -> list[float]:
        """Of the living nodes' own models; empty where the task has no classes."""
        return [accuracy for accuracy in self.node_accuracy or () if accuracy is not None]

    @property
    def bytes_per_node(self) -> float:
        """Sent by the mean living node."""
        sent = [count for count in self.bytes_sent if count is not None]
        return sum(sent) / len(sent)


class Spread(Document):
    """Over the seeds; null where a seed did not get there, so that the median of three needs two."""

    min: float | None
    median: float | None
    max: float | None


class PaceSpread(Document):
    """Steps per second of three nodes, each the median over the seeds."""

    slowest: float
    median: float
    fastest: float


class SeedResult(Document):
    """One run of one method."""

    seed: int
    folder: str
    """Run folder, relative to the comparison's."""
    final_accuracy: float | None
    worst_node_accuracy: float | None
    final_test_loss: float | None
    consensus_distance: float | None
    rounds_to_target: int | None
    seconds_to_target: float | None
    bytes_to_target: float | None
    """Sent by the mean node until the target."""
    seconds: float | None
    """Training seconds of the whole run."""
    bytes_per_node: float | None
    """Sent by the mean node in the whole run."""
    speedup_vs_allreduce: float | None
    """The baseline's seconds to the target over this method's, same seed."""
    speedup_vs_ddp: float | None
    failure: str | None
    """Why the run ended early, such as a divergence; null when it went through."""
    steps_per_second: list[float | None] | None = None
    """Of each node over the whole run, the mean one's where the model walks; null for the dead, without a clock, where
    the run failed, and in older documents."""
    staleness: list[list[int]] | None = None
    """Of each node over the whole run, as in `FreeRun`; null unless the method is asynchronous."""


class Candidate(Document):
    """One learning rate of the grid, for one method."""

    lr: float
    accuracy: float | None
    """Of the averaged model on the validation samples after the last round; null where it ended early."""
    loss: float | None
    """On the same samples; null where it is not finite."""
    failure: str | None
    """Why the run ended early, such as a divergence."""


class Tuning(Document):
    """How a method came to its learning rate."""

    lr: float
    """Chosen; the lowest of the grid where no candidate went through."""
    edge: Literal["lowest", "highest"] | None
    """Set where it is an end of the grid, beyond which a better one may lie."""
    candidates: list[Candidate]
    """From the lowest rate to the highest."""


class Tuned(Document):
    """What all methods' learning rates were chosen by."""

    seed: int
    rounds: int
    training_samples: int
    validation_samples: int
    """Set aside from the training samples; the test set was not looked at."""


class Repelled(Document):
    """How a walk is repelled by where it has been, and how its steps decay: what theory asks of SA-SRRW."""

    alpha: float
    gamma_decay: float
    """a: visit t counts for (t + 2)^-a of all."""
    decay: float
    """b: visit t steps with the learning rate times (t + 2)^-b."""


class MethodResult(Document):
    """One method over all seeds; plain fields are medians over `per_seed`."""

    name: str
    algorithm: str
    topology: str | None
    """Key into `Comparison.topologies`; null for a centralized baseline."""
    baseline: bool
    consensus_step: float | None = None
    """gamma, given or found; null where the method has none."""
    tuning: Tuning | None = None
    """Null where the learning rate is the file's."""
    steps_per_round: int | None = None
    """Of all nodes together: one each, or the visits where the model walks; null in older documents, and for DDP."""
    repelled: Repelled | None = None
    """Of sa-srrw; null for other methods."""
    final_accuracy: float | None
    worst_node_accuracy: float | None
    final_test_loss: float | None
    rounds_to_target: float | None
    seconds_to_target: float | None
    bytes_to_target: float | None
    seconds: float | None
    bytes_per_node: float | None
    speedup_vs_allreduce: float | None
    speedup_vs_ddp: float | None
    spread: dict[str, Spread]
    """For each of the plain numbers above."""
    per_seed: list[SeedResult]
    pace: PaceSpread | None = None
    """Null without a clock, where no run went through, and in older documents."""
    staleness_counts: str | None = None
    """What it counts, in words; null unless the method is asynchronous."""

    @property
    def steps_per_second(self) -> float | None:
        """Of the median node."""
        return None if self.pace is None else self.pace.median


class TopologySummary(Document):
    """A graph as it was used, for the picture and the table."""

    nodes: int
    edges: list[tuple[int, int, float]]
    """(i, j, w_ij) with i < j; of a directed graph the mean of w_ij and w_ji."""
    self_weights: list[float]
    spectral_gap: float
    max_degree: int
    effective_neighbors: float | None = None
    """n_W(0.9), the mean node's, of Vogels et al. 2022; null where it is not defined or the graph is large."""


class Network(Document):
    """The links of the network lab that the ranks ran in, the same at every host; null: not shaped."""

    hosts: int
    rate_bit_s: float | None
    """In each direction."""
    latency_s: float | None
    """One way, from host to host."""
    jitter_s: float | None
    loss: float | None
    """Share of packets."""


class Comparison(Document):
    """The whole comparison."""

    experiment: str
    command: str
    """What reproduces it."""
    clock: Clock
    """wall: seconds of real processes. none: a simulator, whose seconds say nothing."""
    nodes: int
    rounds: int
    seeds: list[int]
    score: Literal["accuracy", "test_loss"]
    target: float | None
    parameters: int
    """Number of parameters of the model."""
    versions: dict[str, str]
    network: Network | None = None
    """Null outside a network lab: whatever the machine has."""
    tuned: Tuned | None = None
    """Null where the learning rates are the file's."""
    unequal: bool = False
    """Whether nodes were made unequally fast: by stragglers, a clock or batches of several sizes."""
    topologies: dict[str, TopologySummary]
    methods: list[MethodResult]
    predicted: list[MethodResult] | None = None
    """The same methods in virtual time by the experiment's clock, DDP as all-reduce, with folders in
    `predicted/`; null unless it was asked for."""
