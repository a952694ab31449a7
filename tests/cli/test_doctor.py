"""`decentral doctor`: one page or one document, and an exit code."""

import pytest

from decentral.transport import machine
from decentral.transport.machine import Finding
from tests.cli.conftest import Command

OK = Finding("torch", "ok", "2.13", required=True, facts={"version": "2.13"})
NO_MPI = Finding("mpi4py", "missing", "pip install 'decentral[mpi]'")
NO_GLOO = Finding("gloo", "broken", "[Errno -2] Name or service not known", required=True)


@pytest.mark.parametrize(("findings", "code"), [([OK, NO_MPI], 0), ([OK, NO_MPI, NO_GLOO], 3)])
def test_the_exit_code_tells_whether_a_run_can_start(
    decentral: Command, monkeypatch: pytest.MonkeyPatch, findings: list[Finding], code: int
) -> None:
    monkeypatch.setattr(machine, "examine", lambda: iter(findings))
    page = decentral("doctor")
    assert page.code == code
    assert "missing mpi4py         pip install 'decentral[mpi]'" in page.out
    assert ("gloo broken, which every run needs" in page.err) == (code == 3)
    document = decentral("doctor", "--json")
    assert (document.code, document.json["ok"]) == (code, code == 0)
    assert document.json["findings"][0] == {
        "topic": "torch", "verdict": "ok", "text": "2.13", "required": True, "version": "2.13",
    }  # fmt: skip


@pytest.mark.processes
def test_this_machine(decentral: Command) -> None:
    """All that a run needs is here, or no other test could pass."""
    result = decentral("doctor", "--json")
    assert (result.code, result.json["ok"]) == (0, True), result.err
    found = {finding["topic"]: finding for finding in result.json["findings"]}
    assert {"python", "torch", "gloo", "numba", "mpi4py", "mpirun", "launcher", "network lab", "cores"} <= found.keys()
    assert all(found[topic]["verdict"] == "ok" for topic in ("python", "torch", "gloo", "numba", "launcher"))
