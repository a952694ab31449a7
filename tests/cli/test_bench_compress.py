"""`bench compress`: what it says of each compressor belongs together; no time is asserted."""

import json

import pytest

from decentral.cli.main import app
from decentral.errors import ConfigError
from decentral.measure.compression import SUBJECTS, square
from tests.cli.conftest import *  # noqa: F403
