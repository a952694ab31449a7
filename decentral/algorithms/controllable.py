"""Which methods further gossip between rounds would spoil, and why: consensus control refuses them."""

from collections.abc import Mapping

from decentral.algorithms.algorithm import Algorithm
from decentral.errors import ConfigError

_COMPRESSED = "what it sends is compressed, and control sends whole models; the wire would be saved and spent again"
_SUMMED = "its correction sums what its own mixing changes, and gossip in between would be missing from it"
_OUTER = "its outer steps start from a model of their own, which gossip between rounds would not move"
_CENTRAL = "it is centralized: its nodes hold the same model already"
_TOKENS = "its models walk from node to node"

WHY_NOT: Mapping[str, str] = {
    "dsgd": _COMPRESSED,
    "choco": f"{_COMPRESSED}, with public copies left behind",
    **dict.fromkeys(("lead", "beer", "motef", "deepsqueeze", "dcd", "ecd", "power-gossip"), _COMPRESSED),
    "d2": _SUMMED,
    "exact-diffusion": _SUMMED,
    "gut": "what it tracks is how models differ from those of its last round, and gossip in between would count",
    "gasloc": _OUTER,
    "noloco": _OUTER,
    "sparseloco": _OUTER,
    "slowmo": "with average: none every node has a slow model of its own, which gossip between rounds would not move",
    "sgp": "its model is a quotient of two sums, which must be mixed together",
    "relay-sgd": "the sums that it relays hold models of earlier rounds, which gossip in between would outdate",
    "epidemic": "its plain means do not keep the mean of all models, and its draws bound nothing",
    "hierarchical": "it mixes groups, whose nodes hold the same model: control would send one model many times",
    **dict.fromkeys(("diloco", "fedavg", "allreduce", "ddp", "ef14", "ef21", "ef21-sgdm", "econtrol"), _CENTRAL),
    **dict.fromkeys(("dqsgd", "diana", "ec-sgd-diana"), _CENTRAL),
    "delayed-dsgd": "the models that it keeps of earlier rounds would be outdated by gossip in between",
    **dict.fromkeys(
        ("ad-psgd", "swift", "async-gradient-push"), "its nodes have no rounds in common to gossip between"
    ),
    **dict.fromkeys(("mcgd", "sa-srrw", "walkman", "token-gossip"), _TOKENS),
}
"""By the names of methods that further gossip would spoil; of dsgd and slowmo that is so with some options alone."""


def controllable(method: Algorithm | None, name: str, at: tuple[str | int, ...] = ()) -> Algorithm:
    """The method, if further gossip between its rounds does not spoil it.

    Args:
        method: None for DDP.
        name: of the method, for the user.
        at: its key path.

    Raises:
        ConfigError: it would.
    """
    if method is not None and method.bears_gossip:
        return method
    reason = WHY_NOT.get(name, "nothing says that what it keeps stays right; if so, let its bears_gossip be True")
    raise ConfigError(f"consensus-control cannot control {name}: {reason}", at)
