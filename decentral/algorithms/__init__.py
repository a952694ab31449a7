"""The methods, one file each, named as the literature names them. Adding one is adding a file and a line here."""

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.dsgd import DSGD

ALGORITHMS: dict[str, type[Algorithm]] = {
    "dsgd": DSGD,
    "allreduce": AllReduceSGD,
}
