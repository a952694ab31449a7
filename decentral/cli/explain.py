"""`decentral explain FILE`: what an experiment will do and cost, before it runs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from decentral.cli import predicting, probing
from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, File, Overrides

if TYPE_CHECKING:
    from decentral.measure.prepared import Prepared
    from decentral.topology.analysis import Analysis


PICTURE = (48, 20)
"""Columns and lines of a graph's picture."""


def explain(
    file: File,
    set_: Overrides = None,
    link: Annotated[
        str | None,
        typer.Option(
            "--link",
            metavar="RATE",
            help="Predict step times over links such as 100mbit, one node per host; `none`: all nodes on this host.",
        ),
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", metavar="TIME", help="Of the link, one way, such as 1ms.")
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option("--compute", metavar="TIME", help="Of a step without communication; measured here unless given."),
    ] = None,
    noise: Annotated[
        bool,
        typer.Option(
            "--noise",
            help="Estimate from gradients at the start from how many nodes or which delay on the speed-up saturates.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Show an experiment's graphs, their gaps, bytes per round, memory per node, step times, and how to launch it."""
    from decentral.loading import load
    from decentral.measure.plan import launch_commands
    from decentral.measure.prepared import prepare_all
    from decentral.methods import methods

    asked = predicting.asked(link, latency, compute)
    loaded = load(file, set_ or ())
    experiment = loaded.experiment
    with loaded.document.placing():
        ready = prepare_all(experiment, methods(experiment), experiment.seeds[0])
        plans = [plan(method) for method in ready]
        probed = probing.noise(ready[0].task) if noise else None
        prediction = None if asked is None else predicting.prediction(asked, experiment, ready)
    commands = launch_commands(str(file), experiment.nodes)
    first = ready[0].task
    document = {
        "experiment": experiment.name,
        "nodes": experiment.nodes,
        "rounds": experiment.rounds,
        "parameters": first.parameters,
        "samples_per_node": [len(shard) for shard in first.shards],
        "methods": plans,
        "launch": commands,
        "prediction": prediction,
        "noise": probed,
    }
    if json:
        print_json(document)
    else:
        _print(document, ready)


def plan(ready: "Prepared") -> dict[str, Any]:
    """What one method will cost, as a document."""
    from decentral.measure.plan import bytes_per_round, memory_bytes
    from decentral.topology.analysis import analyze

    return {
        "name": ready.label,
        "topology": None if ready.graph is None else {"name": ready.graph.name} | analyze(ready.graph).as_dict(),
        "bytes_per_round_busiest_node": bytes_per_round(ready, ready.busiest),
        "memory_bytes_busiest_node": memory_bytes(ready, ready.busiest),
        "control": foretold_of_control(ready),
        "free_run": foretold_of_free_run(ready),
    }


def _print(document: dict[str, Any], ready: "list[Prepared]") -> None:
    from decentral.measure.summary import topology_key
    from decentral.measure.tables import in_bytes, said
    from decentral.topology.analysis import analyze
    from decentral.topology.picture import draw

    out = stdout()
    held = document["samples_per_node"]
    out.print(
        f"{document['experiment']}: {document['nodes']} nodes, {document['rounds']} rounds, "
        f"{document['parameters']} parameters, {min(held)} to {max(held)} training samples per node"
    )
    drawn = set()
    for method in ready:
        name = topology_key(method.method)
        if method.graph is None or name in drawn:
            continue
        drawn.add(name)
        out.print(f"\n{name}", markup=False)
        out.print(draw(method.graph, *PICTURE), markup=False)
        for line in analysis_lines(analyze(method.graph)):
            out.print(line)
    table = Table(box=None, header_style="bold")
    for column, side in (("method", "left"), ("sent per round", "right"), ("memory", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for row in document["methods"]:
        sent, memory = row["bytes_per_round_busiest_node"], sum(row["memory_bytes_busiest_node"].values())
        table.add_row(row["name"], said(in_bytes, sent), said(in_bytes, memory))
    out.print("\nat the busiest node:")
    out.print(table)
    for row in document["methods"]:
        for told in filter(None, (row["control"], row["free_run"])):
            out.print(f"{row['name']}: {told}", markup=False)
    if document["prediction"] is not None:
        predicting.print_prediction(document["prediction"])
    if document["noise"] is not None:
        probing.print_noise(document["noise"])
    out.print("\nlaunch:")
    for command in document["launch"]:
        out.print(f"  {command}", markup=False)


def foretold_of_control(ready: "Prepared") -> str | None:
    """What the bytes of a controlled method are, and what is not among them; None of another one."""
    from decentral.algorithms.consensus_control import ConsensusControl

    control = ready.algorithm
    if not isinstance(control, ConsensusControl) or control.gossip is None:
        return None
    return (
        "the bytes are the method's own and those that watch the consensus distance: in each controlled round a model "
        f"to each neighbor, and {control.gossip.hops} times {16 * ready.nodes} bytes; further gossip steps come on top "
        f"as nodes part, up to {control.max_steps} a round, each a model to each neighbor but the first"
    )


def foretold_of_free_run(ready: "Prepared") -> str | None:
    """What a round's bytes are where nodes have no rounds in common; None of another method."""
    from decentral.algorithms.ad_psgd import ADPSGD
    from decentral.algorithms.hub import Hub
    from decentral.algorithms.swift import Swift

    algorithm = ready.algorithm
    if algorithm is None or not algorithm.free_running:
        return None
    told = "the bytes are of a step of its own, where nodes are equally fast, nothing is lost and no link is too slow"
    if isinstance(algorithm, Hub):
        told += f"; a step of the hub is over with every {ready.nodes - 1} gradients that come"
    if isinstance(algorithm, ADPSGD):
        told += (
            ": a request, and a reply to each that comes; fewer where an answer takes longer than a step, as slow "
            "nodes' do, and half as many in a simulation whose nodes are exactly in step"
        )
    if isinstance(algorithm, Swift) and not algorithm.uses_weights:
        told += "; it averages by weights of its own, made for the links: the eigenvalues above are not theirs"
    return told


def analysis_lines(analysis: "Analysis") -> list[str]:
    """A graph's numbers in words."""
    exact = "" if analysis.diameter_exact else "at least "
    about = "" if analysis.rounds_exact else "about "
    return [
        f"  {analysis.nodes} nodes, {analysis.edges} edges, degree {analysis.degree_min} to {analysis.degree_max}, "
        f"diameter {exact}{analysis.diameter}",
        f"  {_spectrum_words(analysis)}, spectral gap {analysis.gap:.4g}".replace("-0.0000", "0.0000"),
        f"  rounds in which gossip alone halves disagreement: {about}{analysis.rounds_to_halve:,.0f}; "
        f"divides it by e: {about}{analysis.rounds_to_e:,.0f}; "
        f"by a thousand: {about}{analysis.rounds_to_thousandth:,.0f}",
    ]


def _spectrum_words(analysis: "Analysis") -> str:
    of = "" if analysis.period == 1 else "of the mean matrix: "
    if analysis.l2 is not None and analysis.ln is not None:
        return f"{of}second eigenvalue {analysis.l2:.4f}, last {analysis.ln:.4f}"
    singular = analysis.second_singular_value
    beside = "" if singular is None else f", second singular value {singular:.4f}"
    return f"{of}second largest modulus of an eigenvalue {analysis.second_modulus or 0:.4f}{beside}"
