"""What the clock simulator says of a comparison that ran on real processes, beside what was measured there."""

from dataclasses import replace
from pathlib import Path

from decentral.config import DDP, AllReduceSGD, Experiment
from decentral.errors import ConfigError
from decentral.measure.comparison import DOCUMENT, Comparison, Network
from decentral.measure.consensus_steps import keep, kept_in
from decentral.measure.record import write_json
from decentral.measure.report import read_comparison
from decentral.measure.speedup import compare_simulated
from decentral.measure.tuning import Progress
from decentral.methods import ResolvedMethod, methods

FOLDER = "predicted"
"""In the comparison's own: the simulated one."""


def refuse_unpredictable(experiment: Experiment) -> None:
    """Raise ConfigError where nothing says how long anything takes in virtual time."""
    if experiment.clock is None:
        raise ConfigError(
            "found no clock: section, by which seconds are predicted; give clock.gradient_s, and latency_s and "
            "rate_bit_s of the links",
            ("clock",),
        )


def predict(experiment: Experiment, folder: Path, command: str, progress: Progress) -> Comparison:
    """Simulate every method at every seed in virtual time, and add what came of it to the comparison in the folder.

    DDP is simulated as all-reduce, which sends as much, in the same order. Of a network lab the links are known.

    Raises:
        ConfigError: there is no clock, or no finished comparison in the folder.
    """
    refuse_unpredictable(experiment)
    measured = read_comparison(folder / DOCUMENT)
    experiment = _on_links(experiment, measured.network)
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    keep(kept_in(folder), place)
    stand_ins = [_stand_in(method) for method in methods(experiment)]
    simulated = compare_simulated(experiment, place, command, progress, candidates=stand_ins)
    document = measured.model_copy(update={"predicted": simulated.methods})
    write_json(folder / DOCUMENT, document.model_dump(mode="json"))
    return document


def _on_links(experiment: Experiment, network: Network | None) -> Experiment:
    """The experiment with the links of the network lab that it ran in, where its clock says nothing of them."""
    if network is None or experiment.clock is None:
        return experiment
    links = {"latency_s": network.latency_s or 0.0, "node_rate_bit_s": network.rate_bit_s}
    given = experiment.clock.model_fields_set
    clock = experiment.clock.model_copy(update={key: link for key, link in links.items() if key not in given})
    return experiment.model_copy(update={"clock": clock})


def _stand_in(method: ResolvedMethod) -> ResolvedMethod:
    if not isinstance(method.algorithm, DDP):
        return method
    return replace(method, algorithm=AllReduceSGD(name="allreduce"))
