"""The methods, one file each, named as the literature names them. Adding one is adding a file and a line here."""

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.d2 import D2
from decentral.algorithms.decentlam import DecentLaM
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.global_update_tracking import GlobalUpdateTracking
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.hierarchical import Hierarchical
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.algorithms.quasi_global_adam import QuasiGlobalAdam
from decentral.algorithms.quasi_global_momentum import QuasiGlobalMomentum
from decentral.algorithms.random_walk_sgd import RandomWalkSGD
from decentral.algorithms.sa_srrw import SASRRW
from decentral.algorithms.slowmo import SlowMo
from decentral.algorithms.token_gossip import TokenGossip
from decentral.algorithms.tokens import TokenMethod
from decentral.algorithms.walkman import Walkman

ALGORITHMS: dict[str, type[Algorithm]] = {
    "dsgd": DSGD,
    "hierarchical": Hierarchical,
    "gradient-tracking": GradientTracking,
    "d2": D2,
    "exact-diffusion": ExactDiffusion,
    "qg-dsgdm": QuasiGlobalMomentum,
    "qg-dadam": QuasiGlobalAdam,
    "decentlam": DecentLaM,
    "slowmo": SlowMo,
    "momentum-tracking": MomentumTracking,
    "gut": GlobalUpdateTracking,
    "allreduce": AllReduceSGD,
}

TOKEN_METHODS: dict[str, type[TokenMethod]] = {
    "mcgd": RandomWalkSGD,
    "sa-srrw": SASRRW,
    "walkman": Walkman,
    "token-gossip": TokenGossip,
}
"""The methods whose models walk, which have a battery of their own."""
