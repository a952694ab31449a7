"""The page and the table of a comparison, on synthetic runs that look like real ones."""

import html
import io
import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest
from rich.console import Console

from decentral.errors import ConfigError
from decentral.measure.comparison import (
    DOCUMENT,
    Comparison,
    Evaluation,
    FreeRun,
    MethodResult,
    SeedResult,
    TopologySummary,
)
from decentral.measure.figures import topology_svg
from decentral.measure.report import _every_series, read_comparison, read_run, summary, write_report
from decentral.measure.summary import method_result, seed_result, with_speedups
from decentral.measure.tables import in_bytes, in_seconds, plain_rows, rows, said
from decentral.measure.terminal_table import comparison_table

HOSTILE = "<script>alert(1)</script> $\\frac \x1b[31m"
PARAMETERS = 4810


@dataclass
class Sketch:
    """A synthetic method: it approaches `ceiling` at `rate` per round, with its own costs."""

    name: str
    algorithm: str = "dsgd"
    topology: str | None = None
    rate: float = 0.026
    ceiling: float = 0.97
    round_s: float = 0.01
    vectors: float = 2.0
    distance: float = 0.5
    fails_at: dict[int, int] = field(default_factory=dict)

    def run(self, seed: int, nodes: int, rounds: int, score: str) -> list[Evaluation]:
        noise = np.random.default_rng([seed, len(self.name)])
        rate, round_s = self.rate * noise.uniform(0.85, 1.15), self.round_s * noise.uniform(0.9, 1.1)
        found = []
        for turn in range(0, min(rounds, self.fails_at.get(seed, rounds)) + 1, 10):
            accuracy = self.ceiling - (self.ceiling - 0.1) * math.exp(-rate * turn) + noise.normal(0, 0.004)
            own = [accuracy - self.distance * abs(noise.normal(0, 0.02)) for _ in range(nodes)]
            loss = 2.3 * math.exp(-rate * turn) + 0.05
            sent, distance = int(turn * (4 * PARAMETERS * self.vectors + 128)), self.distance * math.exp(-turn / 250)
            scores = (accuracy, own) if score == "accuracy" else (None, None)
            line = (
                turn,
                round_s * turn,
                loss if turn else None,
                loss,
                *scores,
                [loss] * nodes,
                distance,
                None,
                [sent] * nodes,
            )
            found.append(Evaluation(**dict(zip(Evaluation.model_fields, line, strict=False))))
        return found

    def over_seeds(self, runs: list[SeedResult]) -> MethodResult:
        algorithm = SimpleNamespace(name=self.algorithm, centralized=True)
        method = SimpleNamespace(label=self.name, algorithm=algorithm, baseline=self.topology is None)
        return method_result(method, runs).model_copy(update={"topology": self.topology})


def of(graph: nx.Graph) -> TopologySummary:
    graph, degree = nx.convert_node_labels_to_integers(graph), max(dict(graph.degree).values())
    edges = [(min(edge), max(edge), 1 / (1 + degree)) for edge in graph.edges]
    weights = [0.2] * len(graph)
    return TopologySummary(nodes=len(graph), edges=edges, self_weights=weights, spectral_gap=0.0507, max_degree=degree)


GRAPHS = {"ring": of(nx.cycle_graph(16)), "torus": of(nx.grid_2d_graph(4, 4, periodic=True))}
GOSSIP = [
    Sketch("dsgd on ring", topology="ring", rate=0.022, ceiling=0.955, round_s=0.009, distance=0.9),
    Sketch("dsgd on torus", topology="torus", rate=0.024, ceiling=0.962, round_s=0.011, vectors=4),
]
ALLREDUCE = Sketch("allreduce", "allreduce", round_s=0.02, vectors=1.875, distance=0)
DDP = Sketch("ddp", "ddp", round_s=0.016, vectors=1.875, distance=0)
DEAD = Sketch("too fast", topology="ring", fails_at={0: 40, 1: 30, 2: 50})
EVERY = [*GOSSIP, ALLREDUCE, DDP]


def write_comparison(folder: Path, sketches: list[Sketch] = EVERY, **changes: Any) -> Comparison:
    """Leaves a folder as `decentral speedup` does."""
    plain: dict[str, Any] = {"clock": "wall", "nodes": 16, "rounds": 300, "score": "accuracy", "target": 0.93}
    plain |= {"experiment": "digits-ring", "command": "decentral speedup digits.yaml", "parameters": PARAMETERS}
    plain |= {"versions": {"torch": "2.13.0"}, "topologies": GRAPHS, "seeds": [0, 1, 2]} | changes
    found: dict[str, list[SeedResult]] = {}
    for sketch, seed in product(sketches, plain["seeds"]):
        name = f"{sketches.index(sketch)}-seed{seed}"
        run = sketch.run(seed, plain["nodes"], plain["rounds"], plain["score"])
        (folder / name).mkdir(parents=True)
        (folder / name / "metrics.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in run))
        failure = f"node 3 diverged in round {run[-1].round}: its loss is nan" if seed in sketch.fails_at else None
        found.setdefault(sketch.name, []).append(seed_result(seed, name, run, plain["target"], failure))
    rivals = found.get("allreduce", []), found.get("ddp", [])
    methods = [sketch.over_seeds(with_speedups(found[sketch.name], *rivals)) for sketch in sketches]
    (folder / DOCUMENT).write_text((comparison := Comparison(**plain, methods=methods)).model_dump_json())
    return comparison


class Checker(HTMLParser):
    """Every tag closed in order, ids unique, nothing fetched from anywhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(page)
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for key, value in attrs if key == "id"]
        assert not [key for key, value in attrs if key == "src" or (key == "href" and (value or "")[:1] != "#")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(folder: Path, comparison: Comparison) -> str:
    page = write_report(folder).read_text(encoding="utf-8")
    Checker(page)
    assert not re.search(r"https?:(?!//www.w3.org/2000/svg\")|@import|url\((?!#)|<script|<link", page)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(drawing)
        assert (root.get("role"), bool(root.get("aria-label"))) == ("img", True)
    for row in rows(comparison):
        assert html.escape(row.name) in page
        assert all(f">{text}<" in page for cell in row.cells for text in (cell.text, cell.spread) if text)
    return page


CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "one seed": {"seeds": [0]},
    "no target": {"target": None},
    "out of reach": {"target": 0.999},
    "no clock": {"clock": "none"},
    "no baseline": {"sketches": GOSSIP},
    "a method failed": {"sketches": [DEAD, *EVERY]},
    "all failed": {"sketches": [DEAD]},
    "regression": {"score": "test_loss", "target": 0.3},
    "hostile": {"sketches": [Sketch(HOSTILE, topology="ring"), *EVERY], "topologies": {HOSTILE: GRAPHS["ring"]}},
    "one node": {"nodes": 1, "topologies": {"ring": of(nx.empty_graph(1))}},
}


@pytest.mark.parametrize("case", CASES)
def test_page_and_terminal_say_every_number(case: str, tmp_path: Path) -> None:
    comparison = write_comparison(tmp_path, **CASES[case])
    page = checked(tmp_path, comparison)
    assert write_report(tmp_path).read_text(encoding="utf-8") == page
    assert not list(tmp_path.glob(".report*"))
    assert len(plain_rows(comparison)) == len(comparison.methods)
    for width in (80, 120):
        lines = printed(comparison, width).splitlines()
        assert max(map(len, lines)) <= width
        words = "".join("".join(lines).split())
        assert all(cell.text.split()[0] in words for row in rows(comparison) for cell in row.cells)


def printed(comparison: Comparison, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(comparison_table(comparison, width))
    return console.export_text()


def test_the_network_lab_stands_above_the_numbers_that_it_made(tmp_path: Path) -> None:
    link = {"hosts": 16, "rate_bit_s": 1e8, "latency_s": 0.01, "jitter_s": None, "loss": 0.001}
    comparison = write_comparison(tmp_path / "lab", network=link)
    told = "16 hosts, 100 Mbit/s each way, 10 ms one way, 0.1% of packets lost"
    assert f"<dt>Network lab</dt><dd>{told}</dd>" in checked(tmp_path / "lab", comparison)
    assert printed(comparison, 140).splitlines()[0].strip() == f"network lab: {told}"
    assert "etwork lab" not in checked(tmp_path / "none", write_comparison(tmp_path / "none"))


def test_what_was_measured_between_nodes_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    comparison = write_comparison(tmp_path, [GOSSIP[0], ALLREDUCE])
    assert 'id="between"' not in checked(tmp_path, comparison)  # older records have none of it
    for metrics in tmp_path.glob("*/metrics.jsonl"):
        further = {"heterogeneity": 0.5, "disagreement": 0.1}
        lines = [row.model_copy(update=further).model_dump_json() for row in read_run(metrics)]
        metrics.write_text("\n".join(lines) + "\n")
    page = checked(tmp_path, comparison)
    section = page[page.index('id="between"') : page.index('id="graphs"')]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["Heterogeneity ζ²", "Disagreement"]
    assert section.count("<svg") == 2


def test_the_seeds_of_free_runs_are_drawn_together_though_their_mean_steps_differ(tmp_path: Path) -> None:
    """Aligned by these, each evaluation stood alone, and of three seeds that is fewer than half: no curve was drawn."""
    write_comparison(tmp_path, [GOSSIP[0]])
    for seed, metrics in enumerate(sorted(tmp_path.glob("*/metrics.jsonl"))):
        went = FreeRun(steps=[1] * 16, staleness=[[]] * 16)
        rows = [row.model_copy(update={"round": row.round + seed, "free_run": went}) for row in read_run(metrics)]
        metrics.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (drawn,) = _every_series(tmp_path, read_comparison(tmp_path / DOCUMENT))
    assert drawn.values["rounds"].shape == (3, 31)
    assert drawn.values["rounds"][:, 1].tolist() == [10, 11, 12]


def test_users_strings_stay_text(tmp_path: Path) -> None:
    comparison = write_comparison(tmp_path, **CASES["hostile"])
    page = checked(tmp_path, comparison)
    assert "<script" not in page
    assert "\x1b" not in page + printed(comparison, 120)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; $\\frac") >= 4 + 2  # each legend, the table, the heading


def test_failures_and_what_was_not_reached_are_said(tmp_path: Path) -> None:
    comparison = write_comparison(tmp_path, [DEAD, Sketch("half", topology="ring", fails_at={1: 100}), *EVERY])
    page, text = checked(tmp_path, comparison), printed(comparison, 240)
    for words in ("3 of 3 seeds diverged", "1 of 3 seeds diverged", "diverged in round 40", "not reached"):
        assert words in page
        assert words in text


def test_summary_is_honest_about_who_won(tmp_path: Path) -> None:
    won = summary(write_comparison(tmp_path / "won"))
    assert re.match(r"dsgd on \w+ reached the target of 93.0% test accuracy first, in .* as fast as all-reduce", won)
    slow = [Sketch("slow", topology="ring", round_s=0.5), ALLREDUCE]
    lost = summary(write_comparison(tmp_path / "lost", slow))
    assert lost.startswith("The centralized baseline allreduce reached")
    assert re.search(r"slow, took .*: 0\.0\dx as fast as all-reduce.*DDP was not run", lost)
    assert "No method reached" in summary(write_comparison(tmp_path / "none", target=0.999))
    assert "No target was set" in summary(write_comparison(tmp_path / "open", target=None))
    assert re.search(r"first, in \d+ rounds", summary(write_comparison(tmp_path / "untimed", clock="none")))


def test_methods_stand_in_the_order_in_which_they_reached_the_target(tmp_path: Path) -> None:
    sketches = [Sketch("never", topology="ring", ceiling=0.5), Sketch("less", topology="ring", ceiling=0.4)]
    sketches += [Sketch("late", topology="ring", rate=0.02), Sketch("dear", topology="ring", rate=0.1, round_s=1.0)]
    sketches += [Sketch("allreduce", "allreduce"), Sketch("ddp", "ddp", rate=0.05)]
    timed = write_comparison(tmp_path, sketches)
    assert [row.name for row in rows(timed)] == ["late", "dear", "never", "less", "ddp", "allreduce"]
    untimed = timed.model_copy(update={"clock": "none"})
    assert [row.name for row in rows(untimed)] == ["dear", "late", "never", "less", "ddp", "allreduce"]


def test_torn_last_line_is_tolerated_and_nothing_else(tmp_path: Path) -> None:
    write_comparison(tmp_path)
    metrics = tmp_path / "0-seed0" / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-20])
    assert len(read_run(metrics)) == len(whole.splitlines()) - 1
    write_report(tmp_path)
    for spoiled in (b"", b"{}\n", whole[:-20] + b"\n", b"\xff\n", b'{"round": "x"}'):
        metrics.write_bytes(spoiled)
        with pytest.raises(ConfigError, match=r"0-seed0/metrics\.jsonl.*expected what a finished `speedup`"):
            write_report(tmp_path)
    metrics.unlink()
    with pytest.raises(ConfigError, match=r"0-seed0/metrics\.jsonl: cannot be read \(No such file"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"experiment": 3}', b"\xff"])
def test_foreign_documents_are_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{DOCUMENT}: cannot be read"):
        write_report(tmp_path)
    (tmp_path / DOCUMENT).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{DOCUMENT}: .*; expected"):
        write_report(tmp_path)


def test_runs_outside_the_folder_are_refused(tmp_path: Path) -> None:
    text = write_comparison(tmp_path).model_dump_json().replace('"0-seed0"', '"../elsewhere"')
    (tmp_path / DOCUMENT).write_text(text)
    with pytest.raises(ConfigError, match=r"'\.\./elsewhere' lies outside"):
        write_report(tmp_path)


@pytest.mark.parametrize("graph", [nx.star_graph(9), nx.complete_graph(90), nx.hypercube_graph(4), nx.path_graph(70)])
def test_graphs_are_drawn_the_same_every_time(graph: nx.Graph) -> None:
    drawing = topology_svg(of(graph), prefix="a", label="b")
    assert drawing == topology_svg(of(graph), prefix="a", label="b")
    assert all(element.get("id", "a-").startswith("a-") for element in ElementTree.fromstring(drawing).iter())


def test_units() -> None:
    assert [said(in_bytes, count) for count in (999, 999_999, 1.25e9)] == ["999 B", "1.0 MB", "1.2 GB"]
    assert [said(in_seconds, time) for time in (0.0123, 9.996, 4321.0)] == ["12.3 ms", "10.0 s", "4,321 s"]
