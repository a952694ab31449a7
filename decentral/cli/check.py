"""`decentral check FILE`: find whatever is wrong with an experiment, and run nothing."""

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, File, Overrides


def check(file: File, set_: Overrides = None, json: AsJson = False) -> None:
    """Check an experiment: the file, the data, the graphs, the model and every method."""
    from decentral.loading import load
    from decentral.measure.prepared import prepare_all
    from decentral.methods import methods
    from decentral.training.consensus_step import ConsensusSteps

    told: list[str] = []
    steps = ConsensusSteps(tell=told.append)
    loaded = load(file, set_ or ())
    experiment = loaded.experiment
    with loaded.document.placing():
        ready = prepare_all(experiment, methods(experiment), experiment.seeds[0], steps)
    labels = [method.label for method in ready]
    if json:
        print_json(
            {
                "ok": True,
                "experiment": experiment.name,
                "nodes": experiment.nodes,
                "parameters": ready[0].task.parameters,
                "methods": labels,
                "consensus_steps": [found.model_dump(mode="json") for found in steps.known.values()],
            }
        )
        return
    stdout().print(
        f"{file}: ok. {experiment.nodes} nodes, {ready[0].task.parameters} parameters, {len(ready)} methods:"
    )
    for label in labels:
        stdout().print(f"  {label}")
    for line in told:
        stdout().print(line, markup=False)
