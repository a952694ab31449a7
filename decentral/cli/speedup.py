"""`decentral speedup FILE`: every method of an experiment on real processes, compared with centralized training."""

from pathlib import Path

from decentral.cli.console import print_json, progress, stdout
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
    Trace,
    TraceRounds,
)


def speedup(
    file: File,
    set_: Overrides = None,
    nproc: Nproc = None,
    out: Out = None,
    json: AsJson = False,
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
    from decentral.cli.trace import rounds_asked, words
    from decentral.loading import load
    from decentral.measure.record import new_folder
    from decentral.measure.run import digest, prepare_all
    from decentral.measure.speedup import compare
    from decentral.methods import methods
    from decentral.transport.launcher import launched

    overrides, traced = set_ or [], rounds_asked(trace, trace_rounds)
    hosts = lab(netlab, rate=rate, latency=latency, jitter=jitter, loss=loss)
    loaded = load(file, overrides)
    experiment = loaded.experiment
    this = launched()
    with loaded.document.placing():
        if this is None:
            with ranks.checking(nproc, experiment, hosts):
                prepare_all(experiment, methods(experiment), experiment.seeds[0])
            folder = new_folder(out, experiment.name)
            ranks.start(["speedup"], file, overrides, experiment, folder, json, words(traced), hosts)
        else:
            world = ranks.join(this, experiment, digest(experiment))
            folder = ranks.agreed_folder(world, out, experiment.name)
            with progress(experiment.rounds, shown=world.rank == 0) as shown:
                command = ranks.command("speedup", file, overrides, words(traced))
                compare(world, experiment, folder, command, shown, traced)
    if this is None or (this.rank == 0 and not ranks.started_by_us()):
        conclude(folder, json)
        if traced and not json:
            stdout().print(f"traced; decentral trace merge {folder}/METHOD/seed-SEED")


def conclude(folder: Path, json: bool) -> None:
    """Write the report of a finished comparison, and print the table or the document."""
    from decentral.measure.comparison import DOCUMENT
    from decentral.measure.report import read_comparison, write_report
    from decentral.measure.tables import comparison_table

    page = write_report(folder)
    comparison = read_comparison(folder / DOCUMENT)
    if json:
        print_json(comparison.model_dump(mode="json") | {"report": str(page)})
        return
    stdout().print(comparison_table(comparison))
    stdout().print(f"report: {page}")
