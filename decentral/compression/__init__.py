"""What is said: compressors, by the names that an experiment gives them."""

from decentral.compression.casting import BFloat16
from decentral.compression.compressor import Compressor

COMPRESSORS: dict[str, Compressor] = {
    "bf16": BFloat16(),
}
