"""`decentral simulate FILE`: the experiment's own method in the lockstep simulator, in this process."""

from decentral.cli.console import complain, print_json, progress, stdout
from decentral.cli.options import AsJson, File, From, Out, Overrides, Resume


def simulate(
    file: File,
    set_: Overrides = None,
    out: Out = None,
    resume: Resume = None,
    from_: From = None,
    json: AsJson = False,
) -> None:
    """Run the experiment's own method on simulated nodes; its models are bitwise those of `train`."""
    import torch

    from decentral.cli import ranks
    from decentral.loading import load
    from decentral.measure.consensus_steps import keep, kept_in
    from decentral.measure.prepared import own_method, refuse_unsimulated
    from decentral.measure.record import claimed, new_folder
    from decentral.measure.resume import chosen
    from decentral.measure.speedup import simulate_alone
    from decentral.transport.gpu import own_place

    overrides = set_ or []
    loaded = load(file, overrides)
    experiment = loaded.experiment
    torch.set_num_threads(experiment.threads)
    with loaded.document.placing(), progress(experiment.rounds) as shown:
        own_place(experiment.device)
        steps = kept_in(resume, tell=complain)
        ready = own_method(experiment, steps)
        refuse_unsimulated(ready)
        origin = ranks.origin(resume, from_, out)
        if origin:
            origin = chosen(origin)
        folder = resume or new_folder(out, experiment.name)
        command = ranks.command("simulate", file, overrides)
        with claimed(folder):
            keep(steps, folder)
            document = simulate_alone(ready, experiment, folder, command, shown, origin)
    if json:
        print_json(document.model_dump(mode="json"))
    else:
        stdout().print(f"recorded in {folder}; decentral report {folder} draws it")
