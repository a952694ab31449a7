"""`decentral speedup FILE`: every method of an experiment on real processes, compared with centralized training."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decentral.cli.console import complain, print_json, progress, stdout
from decentral.cli.options import (
    AsJson,
    File,
    Jitter,
    Latency,
    Loss,
    Netlab,
    Nproc,
    Out,
    Overrides,
    Rate,
    Stragglers,
    Trace,
    TraceRounds,
    Tune,
)
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.loading import Loaded


def speedup(
    file: File,
    set_: Overrides = None,
    nproc: Nproc = None,
    out: Out = None,
    json: AsJson = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="On simulated nodes in this process: no seconds, and no DDP.")
    ] = False,
    predict: Annotated[
        bool,
        typer.Option("--predict", help="Then simulate the same by the file's `clock:`, and compare the seconds."),
    ] = False,
    tune: Tune = False,
    straggler: Stragglers = None,
    trace: Trace = False,
    trace_rounds: TraceRounds = None,
    netlab: Netlab = None,
    rate: Rate = None,
    latency: Latency = None,
    jitter: Jitter = None,
    loss: Loss = None,
) -> None:
    """Compare the file's algorithm, its `compare:` and its baselines at every seed; a table and a report."""
    from decentral.cli import ranks
    from decentral.cli.netlab import lab
    from decentral.cli.straggler import with_stragglers
    from decentral.cli.trace import rounds_asked, words
    from decentral.loading import load
    from decentral.measure.speedup import compare
    from decentral.transport.world import World

    overrides, traced = with_stragglers(set_ or [], straggler), rounds_asked(trace, trace_rounds)
    hosts = lab(netlab, rate=rate, latency=latency, jitter=jitter, loss=loss)
    loaded, more = load(file, overrides), words(traced) + (["--tune"] if tune else [])
    if tune:
        _check_tune(loaded)
    if predict:
        _check_predict(loaded, tune)
    if simulated:
        asked = {"--nproc": nproc, "--netlab": netlab, "--trace": traced, "--predict": predict or None}
        others = [option for option, value in asked.items() if value is not None]
        _simulated(file, loaded, overrides, out, json, tune, others)
        return

    def work(world: World, folder: Path) -> None:
        with progress(loaded.experiment.rounds, shown=world.rank == 0) as shown:
            command = ranks.command("speedup", file, overrides, more)
            compare(world, loaded.experiment, folder, command, shown, traced, ranks.teller(world), tune)

    folder = ranks.carried_out(
        ["speedup"], file, overrides, loaded, work, out=out, json=json, nproc=nproc, more=more, lab=hosts
    )
    if folder is not None:
        if predict:
            _predict(file, loaded, overrides, folder)
        conclude(folder, json)
        if traced and not json:
            stdout().print(f"traced; decentral trace merge {folder}/METHOD/seed-SEED")


def _check_tune(loaded: "Loaded") -> None:
    """What stands against tuning is told by the launcher, before any node runs; ranks would each say it."""
    from decentral.measure.tuning import trial_task
    from decentral.transport.launcher import launched

    if launched() is None:
        with loaded.document.placing():
            trial_task(loaded.experiment)


def _check_predict(loaded: "Loaded", tune: bool) -> None:
    from decentral.measure.prediction import refuse_unpredictable

    if tune:
        raise ConfigError("--predict with --tune, whose rates would be chosen anew; tune first, then give the rates")
    with loaded.document.placing():
        refuse_unpredictable(loaded.experiment)


def _predict(file: Path, loaded: "Loaded", overrides: list[str], folder: Path) -> None:
    import torch

    from decentral.cli import ranks
    from decentral.measure.prediction import predict

    torch.set_num_threads(loaded.experiment.threads)
    with loaded.document.placing(), progress(loaded.experiment.rounds) as shown, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of has been said
        predict(loaded.experiment, folder, ranks.command("speedup", file, overrides, ["--simulated"]), shown)


def _simulated(
    file: Path, loaded: "Loaded", overrides: list[str], out: Path | None, json: bool, tune: bool, others: list[str]
) -> None:
    import torch

    from decentral.cli import ranks
    from decentral.measure.consensus_steps import keep, kept_in
    from decentral.measure.prepared import prepare_all, refuse_unsimulated
    from decentral.measure.record import new_folder
    from decentral.measure.speedup import compare_simulated, simulated
    from decentral.methods import methods

    if others:
        raise ConfigError(f"{' '.join(others)} with --simulated, which starts no processes; leave one of them out")
    experiment = loaded.experiment
    torch.set_num_threads(experiment.threads)
    with loaded.document.placing(), progress(experiment.rounds) as shown:
        steps = kept_in(None, tell=complain)
        for ready in prepare_all(experiment, simulated(methods(experiment)), experiment.seeds[0], steps):
            refuse_unsimulated(ready)
        folder = new_folder(out, experiment.name)
        keep(steps, folder)
        command = ranks.command("speedup", file, overrides, ["--simulated", *(["--tune"] if tune else [])])
        compare_simulated(experiment, folder, command, shown, tune)
    conclude(folder, json)


def conclude(folder: Path, json: bool) -> None:
    """Write the report of a finished comparison, and print the table or the document."""
    from decentral.measure.comparison import DOCUMENT
    from decentral.measure.report import read_comparison, write_report
    from decentral.measure.terminal_table import comparison_table, predicted_table

    page = write_report(folder)
    comparison = read_comparison(folder / DOCUMENT)
    if json:
        print_json(comparison.model_dump(mode="json") | {"report": str(page)})
        return
    stdout().print(comparison_table(comparison, stdout().width))
    if (predicted := predicted_table(comparison)) is not None:
        stdout().print("", predicted)
    stdout().print(f"report: {page}")
