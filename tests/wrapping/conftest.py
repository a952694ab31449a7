"""A session of one node, and one thread of torch: the last bits of a sum depend on how many there are."""

from collections.abc import Iterator

import pytest
import torch

from decentral.config import Transport
from decentral.transport.world import World
from decentral.wrapping.session import Session


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def session() -> Iterator[Session]:
    """Of the only node."""
    made = Session(World.alone(Transport()))
    yield made
    made.close()
