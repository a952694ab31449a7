"""The methods, one file each, named as the literature names them. Adding one is adding a file and a line here."""

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.choco import Choco
from decentral.algorithms.d2 import D2
from decentral.algorithms.decentlam import DecentLaM
from decentral.algorithms.diloco import DiLoCo
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.epidemic import EpidemicLearning
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.fedavg import FedAvg
from decentral.algorithms.gasloc import GASLoC
from decentral.algorithms.global_update_tracking import GlobalUpdateTracking
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.hierarchical import Hierarchical
from decentral.algorithms.momentum_tracking import MomentumTracking
from decentral.algorithms.noloco import NoLoCo
from decentral.algorithms.power_gossip import PowerGossip
from decentral.algorithms.quasi_global_adam import QuasiGlobalAdam
from decentral.algorithms.quasi_global_momentum import QuasiGlobalMomentum
from decentral.algorithms.slowmo import SlowMo
from decentral.algorithms.sparseloco import SparseLoCo
from decentral.algorithms.sparta import Sparta

ALGORITHMS: dict[str, type[Algorithm]] = {
    "dsgd": DSGD,
    "hierarchical": Hierarchical,
    "choco": Choco,
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
    "gasloc": GASLoC,
    "noloco": NoLoCo,
    "sparseloco": SparseLoCo,
    "sparta": Sparta,
    "epidemic": EpidemicLearning,
    "diloco": DiLoCo,
    "fedavg": FedAvg,
    "allreduce": AllReduceSGD,
}
