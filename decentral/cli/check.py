"""`decentral check FILE`: find whatever is wrong with an experiment, and run nothing."""

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, File, Overrides


def check(file: File, set_: Overrides = None, json: AsJson = False) -> None:
    """Check an experiment: the file, the data, the graphs, the model and every method."""
    from decentral.loading import load
    from decentral.measure.run import prepare_all
    from decentral.methods import methods

    loaded = load(file, set_ or ())
    experiment = loaded.experiment
    with loaded.document.placing():
        ready = prepare_all(experiment, methods(experiment), experiment.seeds[0])
    labels = [method.label for method in ready]
    if json:
        print_json(
            {
                "ok": True,
                "experiment": experiment.name,
                "nodes": experiment.nodes,
                "parameters": ready[0].task.parameters,
                "methods": labels,
            }
        )
        return
    stdout().print(
        f"{file}: ok. {experiment.nodes} nodes, {ready[0].task.parameters} parameters, {len(ready)} methods:"
    )
    for label in labels:
        stdout().print(f"  {label}")
