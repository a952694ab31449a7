"""The methods, one file each, named as the literature names them. Adding one is adding a file and a line here."""

from decentral.algorithms.ad_psgd import ADPSGD
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.async_gradient_push import AsyncGradientPush
from decentral.algorithms.async_sgd import AsyncSGD
from decentral.algorithms.asynchronous import Asynchronous
from decentral.algorithms.beer import BEER
from decentral.algorithms.choco import Choco
from decentral.algorithms.consensus_control import ConsensusControl
from decentral.algorithms.d2 import D2
from decentral.algorithms.dc_asgd import DCASGD
from decentral.algorithms.dcd import DCD
from decentral.algorithms.decentlam import DecentLaM
from decentral.algorithms.deepsqueeze import DeepSqueeze
from decentral.algorithms.delayed_dsgd import DelayedDSGD
from decentral.algorithms.diana import DIANA
from decentral.algorithms.diloco import DiLoCo
from decentral.algorithms.dqsgd import DQSGD
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.ec_sgd_diana import ECSGDDIANA
from decentral.algorithms.ecd import ECD
from decentral.algorithms.econtrol import EControl
from decentral.algorithms.ef14 import EF14
from decentral.algorithms.ef21 import EF21
from decentral.algorithms.ef21_sgdm import EF21SGDM
from decentral.algorithms.epidemic import EpidemicLearning
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.fedasync import FedAsync
from decentral.algorithms.fedavg import FedAvg
from decentral.algorithms.fedbuff import FedBuff
from decentral.algorithms.fedfix import FedFix
from decentral.algorithms.gasloc import GASLoC
from decentral.algorithms.global_update_tracking import GlobalUpdateTracking
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.hierarchical import Hierarchical
from decentral.algorithms.hub import Hub
from decentral.algorithms.lead import LEAD
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.algorithms.motef import MoTEF
from decentral.algorithms.noloco import NoLoCo
from decentral.algorithms.power_gossip import PowerGossip
from decentral.algorithms.quasi_global_adam import QuasiGlobalAdam
from decentral.algorithms.quasi_global_momentum import QuasiGlobalMomentum
from decentral.algorithms.random_walk_sgd import RandomWalkSGD
from decentral.algorithms.relay_sgd import RelaySGD
from decentral.algorithms.ringmaster import Ringmaster
from decentral.algorithms.sa_srrw import SASRRW
from decentral.algorithms.slowmo import SlowMo
from decentral.algorithms.sparseloco import SparseLoCo
from decentral.algorithms.sparta import Sparta
from decentral.algorithms.stochastic_gradient_push import StochasticGradientPush
from decentral.algorithms.swift import Swift
from decentral.algorithms.token_exchange import TokenExchange
from decentral.algorithms.token_gossip import TokenGossip
from decentral.algorithms.tokens import TokenMethod
from decentral.algorithms.walkman import Walkman

ALGORITHMS: dict[str, type[Algorithm]] = {
    "dsgd": DSGD,
    "delayed-dsgd": DelayedDSGD,
    "hierarchical": Hierarchical,
    "choco": Choco,
    "lead": LEAD,
    "beer": BEER,
    "motef": MoTEF,
    "deepsqueeze": DeepSqueeze,
    "dcd": DCD,
    "ecd": ECD,
    "power-gossip": PowerGossip,
    "gradient-tracking": GradientTracking,
    "d2": D2,
    "exact-diffusion": ExactDiffusion,
    "qg-dsgdm": QuasiGlobalMomentum,
    "qg-dadam": QuasiGlobalAdam,
    "decentlam": DecentLaM,
    "slowmo": SlowMo,
    "momentum-tracking": MomentumTracking,
    "gut": GlobalUpdateTracking,
    "sgp": StochasticGradientPush,
    "relay-sgd": RelaySGD,
    "gasloc": GASLoC,
    "noloco": NoLoCo,
    "sparseloco": SparseLoCo,
    "sparta": Sparta,
    "epidemic": EpidemicLearning,
    "diloco": DiLoCo,
    "fedavg": FedAvg,
    "allreduce": AllReduceSGD,
    "ef14": EF14,
    "ef21": EF21,
    "ef21-sgdm": EF21SGDM,
    "econtrol": EControl,
    "dqsgd": DQSGD,
    "diana": DIANA,
    "ec-sgd-diana": ECSGDDIANA,
}

TOKEN_METHODS: dict[str, type[TokenMethod]] = {
    "mcgd": RandomWalkSGD,
    "sa-srrw": SASRRW,
    "walkman": Walkman,
    "token-gossip": TokenGossip,
    "token-exchange": TokenExchange,
}
"""The methods whose models walk, which have a battery of their own."""

ASYNCHRONOUS_METHODS: dict[str, type[Asynchronous]] = {
    "ad-psgd": ADPSGD,
    "swift": Swift,
    "async-gradient-push": AsyncGradientPush,
}
"""The methods whose nodes have no rounds in common, which have a battery of their own."""

HUB_METHODS: dict[str, type[Hub]] = {
    "async-sgd": AsyncSGD,
    "ringmaster": Ringmaster,
    "dc-asgd": DCASGD,
    "fedasync": FedAsync,
    "fedbuff": FedBuff,
    "fedfix": FedFix,
}
"""The asynchronous ones in which one node serves, which have a battery of their own."""

CONTROLLERS: dict[str, type[ConsensusControl]] = {"consensus-control": ConsensusControl}
"""Those that wrap one of the methods, which have a test of their own."""
