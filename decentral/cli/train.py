"""`decentral train FILE`: the experiment's own method on real processes."""

from contextlib import nullcontext

from decentral.cli.console import complain, print_json, progress, stdout
from decentral.cli.options import (
    AsJson,
    File,
    From,
    Jitter,
    Latency,
    Loss,
    Netlab,
    Nproc,
    Out,
    Overrides,
    Rate,
    Resume,
    Stragglers,
    Trace,
    TraceRounds,
)


def train(
    file: File,
    set_: Overrides = None,
    nproc: Nproc = None,
    out: Out = None,
    resume: Resume = None,
    from_: From = None,
    json: AsJson = False,
    straggler: Stragglers = None,
    trace: Trace = False,
    trace_rounds: TraceRounds = None,
    netlab: Netlab = None,
    rate: Rate = None,
    latency: Latency = None,
    jitter: Jitter = None,
    loss: Loss = None,
) -> None:
    """Train on real processes, one per node: as a rank where torchrun started this, else by starting them here."""
    from decentral.cli import ranks
    from decentral.cli.netlab import lab
    from decentral.cli.straggler import with_stragglers
    from decentral.cli.trace import rounds_asked, words
    from decentral.loading import load
    from decentral.measure.comparison import DOCUMENT
    from decentral.measure.consensus_steps import keep, kept_in
    from decentral.measure.prepared import own_method, refuse_unfit_ranks, refuse_unlimited
    from decentral.measure.record import claimed, new_folder
    from decentral.measure.resume import checked, chosen, keeping
    from decentral.measure.run import digest
    from decentral.measure.speedup import run_alone, written_after
    from decentral.transport.launcher import launched

    overrides, traced = with_stragglers(set_ or [], straggler), rounds_asked(trace, trace_rounds)
    hosts = lab(netlab, rate=rate, latency=latency, jitter=jitter, loss=loss)
    loaded = load(file, overrides)
    experiment = loaded.experiment
    this = launched()
    command = ranks.command("train", file, overrides, words(traced))
    with loaded.document.placing():
        origin = ranks.origin(resume, from_, out)
        if this is None:
            with ranks.checking(nproc, experiment, hosts):
                steps = kept_in(resume, tell=complain)
                ready = own_method(experiment, steps)
                refuse_unfit_ranks(ready, experiment.transport)
                refuse_unlimited(ready)
                keeping(resume or out or file, experiment, ready, "wall", command, origin)
                if origin:
                    origin = chosen(origin)
                    checked(origin, experiment, ready, range(experiment.nodes))
            folder = resume or new_folder(out, experiment.name)
            more = [*(origin.options if origin else ()), *words(traced)]
            with claimed(folder):
                keep(steps, folder)
                ranks.start(["train"], file, overrides, experiment, folder, json, more, hosts)
                if experiment.transport.survive and not (folder / DOCUMENT).exists():
                    written_after(folder, experiment, command, ready)
        else:
            world = ranks.join(this, experiment, digest(experiment))
            origin = ranks.agreed_origin(world, origin)
            folder = resume or ranks.agreed_folder(world, out, experiment.name)
            mine = world.rank == 0 and not ranks.started_by_us()
            with claimed(folder) if mine else nullcontext(), progress(experiment.rounds, world.rank == 0) as shown:
                run_alone(world, experiment, folder, command, shown, origin, traced, ranks.teller(world), complain)
    if this is not None and (this.rank > 0 or ranks.started_by_us()):
        return
    if json:
        from decentral.measure.report import read_comparison

        print_json(read_comparison(folder / DOCUMENT).model_dump(mode="json"))
    else:
        if traced:
            stdout().print(f"traced; decentral trace merge {folder}, or trace summary {folder}")
        stdout().print(f"recorded in {folder}; decentral report {folder} draws it")
