"""Consensus steps in a run folder: written once, taken again, and refused where the file is another."""

from pathlib import Path

import networkx as nx
import pytest
import torch

from decentral.algorithms.choco import Choco
from decentral.compression import Space
from decentral.errors import ConfigError
from decentral.measure.consensus_steps import FILE, keep, kept_in
from decentral.topology.topology import Topology
from tests.contract.runs import sgd

METHOD = Choco(local=sgd(0.1), compression={"name": "top-k", "fraction": 0.5})
RING = Topology.static("ring", nx.cycle_graph(4), "metropolis")
SPACE = Space(40, torch.float32)


@pytest.mark.parametrize("is_there", [True, False], ids=["searched in the folder", "searched before it was made"])
def test_a_run_that_goes_on_takes_what_was_found(tmp_path: Path, is_there: bool) -> None:
    steps = kept_in(tmp_path if is_there else None)
    gamma = steps.tuned(METHOD, RING, SPACE).consensus_step
    keep(steps, tmp_path)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace(f'"consensus_step": {gamma}', '"consensus_step": 0.125'))
    assert kept_in(tmp_path).tuned(METHOD, RING, SPACE).consensus_step == 0.125


def test_a_run_without_any_has_no_file(tmp_path: Path) -> None:
    steps = kept_in(tmp_path)
    keep(steps, tmp_path)
    assert not (tmp_path / FILE).exists()


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"a": {"consensus_step": 0.1')
    with pytest.raises(ConfigError, match=r"consensus_steps.json was not written by this program"):
        kept_in(tmp_path)
