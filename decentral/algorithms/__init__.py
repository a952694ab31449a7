"""The methods, one file each, named as the literature names them. Adding one is adding a file and a line here."""

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.hierarchical import Hierarchical

ALGORITHMS: dict[str, type[Algorithm]] = {
    "dsgd": DSGD,
    "hierarchical": Hierarchical,
    "allreduce": AllReduceSGD,
}
