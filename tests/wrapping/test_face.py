"""`import decentral`, as a training script uses it: alone in this process, and as ranks that launchers start."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import mse_loss

import decentral
from decentral.errors import ConfigError, MissingEnvironmentError
from decentral.wrapping import face
from tests.test_layers import loaded_by
from tests.wrapping.features import FEATURES, batches, mlp, ordinary, sgd

EXAMPLE = Path(__file__).parents[2] / "launch" / "examples" / "digits_loop.py"


@pytest.fixture(autouse=True)
def _shut_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield
    decentral.shutdown()


def test_the_import_is_light_and_the_names_are_told() -> None:
    assert "torch" not in loaded_by("import decentral\nassert 'wrap' in dir(decentral)")
    assert "torch" in loaded_by("import decentral\ndecentral.wrap")
    with pytest.raises(AttributeError, match="module 'decentral' has no attribute 'warp'"):
        decentral.warp  # noqa: B018


def test_type_checkers_are_told_of_the_same_names() -> None:
    stub = ast.parse(Path(decentral.__file__).with_suffix(".pyi").read_text())
    typed = [alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert typed == decentral.__all__
    assert all(getattr(decentral, name) is getattr(face, name) for name in typed)


def test_a_process_without_a_launcher_is_the_only_node() -> None:
    plain = FEATURES["ordinary"].start()
    ordinary(*plain)
    decentral.init()
    assert (decentral.rank(), decentral.size()) == (0, 1)
    model, optimizer = decentral.wrap(*FEATURES["ordinary"].start(), algorithm="dsgd", topology="ring")
    ordinary(model, optimizer)
    assert all(map(torch.equal, model.parameters(), plain[0].parameters()))
    with decentral.evaluate_averaged(model) as averaged:
        assert averaged is model
        assert all(map(torch.equal, model.parameters(), plain[0].parameters()))


def test_a_run_goes_on_in_another_process_from_its_three_state_dicts(tmp_path: Path) -> None:
    algorithm = {"name": "dsgd", "every": 4}
    decentral.init()
    model, optimizer = decentral.wrap(*FEATURES["adamw"].start(), algorithm=algorithm)
    ordinary(model, optimizer)
    own = decentral.state_dict(optimizer)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "own": own}, tmp_path / "0.pt")
    ordinary(model, optimizer)
    decentral.shutdown()

    decentral.init()
    saved = torch.load(tmp_path / "0.pt", weights_only=True)
    again, optimizer = decentral.wrap(*FEATURES["adamw"].start(), algorithm=algorithm)
    again.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    decentral.load_state_dict(optimizer, saved["own"])
    assert decentral.state_dict(optimizer)["round"] == 6
    ordinary(again, optimizer)
    assert all(map(torch.equal, again.parameters(), model.parameters()))
    assert decentral.state_dict(optimizer)["round"] == 12


def test_order_of_calls() -> None:
    model = mlp()
    for early in (
        lambda: decentral.wrap(model, sgd(model)),
        decentral.rank,
        lambda: decentral.evaluate_averaged(model),
    ):
        with pytest.raises(ConfigError, match=r"decentral.init\(\) has not been called"):
            early()
    decentral.init()
    with pytest.raises(ConfigError, match=r"decentral.init\(\) was called before"):
        decentral.init()
    model, optimizer = decentral.wrap(model, sgd(model))
    inputs, targets = next(batches())
    mse_loss(model(inputs), targets).backward()
    decentral.shutdown()
    decentral.shutdown()
    with pytest.raises(ConfigError, match="no further step can be taken"):
        optimizer.step()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"timeout_s": 0}, "transport.timeout_s: found 0; required: a number, above 0"),
        ({"transport": "carrier-pigeon"}, "transport.name: "),
        ({"transport": {"name": "mpi", "timeut_s": 3}}, "transport.timeut_s: unknown key; did you mean 'timeout_s'?"),
    ],
    ids=str,
)
def test_transports_that_do_not_exist(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        decentral.init(**arguments)
    assert told in str(refused.value)


def test_timeouts_reach_the_links() -> None:
    decentral.init(timeout_s=7, connect_timeout_s=8)
    transport = face._joined().world.transport
    assert (transport.timeout_s, transport.connect_timeout_s) == (7, 8)


def test_half_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(MissingEnvironmentError, match="RANK set but not WORLD_SIZE"):
        decentral.init()


def example(*launcher: str, options: tuple[str, ...] = ()) -> list[tuple[float, float]]:
    """(own, averaged) accuracy in percent of each rank of the example script, as it prints them."""
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*launcher, str(EXAMPLE), *options],
        env=clean | {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"rank (\d) of \d: own ([\d.]+) %, average ([\d.]+) %", done.stdout)
    assert [int(rank) for rank, _, _ in sorted(told)] == list(range(len(told)))
    return [(float(own), float(averaged)) for _, own, averaged in told]


@pytest.mark.processes
def test_the_example_alone() -> None:
    ((own, averaged),) = example(sys.executable)
    assert own == averaged > 90


@pytest.mark.processes
def test_the_example_under_torchrun() -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4")
    told = example(*torchrun, options=("--order", "adapt-while-communicate"))
    assert len(told) == 4
    assert min(own for own, _ in told) > 85
    assert {averaged for _, averaged in told} == {told[0][1]}
    assert told[0][1] > 85


@pytest.mark.processes
@pytest.mark.long
def test_the_example_under_mpirun() -> None:
    mpirun = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if mpirun is None:
        pytest.skip("no mpirun")
    told = example(mpirun, "-n", "3", "--oversubscribe", "--bind-to", "none", sys.executable)
    assert len(told) == 3
    assert min(own for own, _ in told) > 85
    assert {averaged for _, averaged in told} == {told[0][1]}
