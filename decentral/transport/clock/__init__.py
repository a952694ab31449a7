"""The clock simulator: all nodes in one process, in virtual time. What it takes is told, not measured.

A gradient takes its node some time; sending takes none of its node's. A message of S bytes occupies its link in its
direction for S over the link's rate, after those that the same node sent over it before, and arrives a latency later;
where messages are lost, each occupies it until it is acknowledged. Nothing else takes time. What is random is drawn
from the run's seed, so the same experiment gives the same times, on any machine.

What an exchange brings does not depend on time: the times of exchanges and all-reduces are worked out beside the
lockstep simulator. Letters come to a node in the order of virtual time, so whom it serves first depends on it. In a
free run, whose nodes have no rounds in common, all depends on it.
"""

from decentral.transport.clock.exchanges import ExchangesInTime
from decentral.transport.clock.free import FreeInTime
from decentral.transport.clock.letters import LettersInTime
from decentral.transport.clock.log import EventLog, Recorded
from decentral.transport.clock.spells import Away, Slowed, Spells
from decentral.transport.clock.times import VirtualTime, Wire

__all__ = [
    "Away",
    "EventLog",
    "ExchangesInTime",
    "FreeInTime",
    "LettersInTime",
    "Recorded",
    "Slowed",
    "Spells",
    "VirtualTime",
    "Wire",
]
