"""What can be named in a config: plain frozen rows with import strings, so that listing them imports nothing heavy."""

from edgekd.catalog._row import Row, find
from edgekd.catalog.methods import METHODS, NEEDS, MethodRow
from edgekd.catalog.runtimes import BACKENDS, LEAST_OPSET, OPSET, SCHEMES, BackendRow, SchemeRow, parsed_opset
from edgekd.catalog.scorers import SCORERS, ScorerRow
from edgekd.catalog.spaces import SPACES, SpaceRow
from edgekd.catalog.strategies import STRATEGIES, StrategyRow

__all__ = [
    "BACKENDS",
    "LEAST_OPSET",
    "METHODS",
    "NEEDS",
    "OPSET",
    "SCHEMES",
    "SCORERS",
    "SPACES",
    "STRATEGIES",
    "BackendRow",
    "MethodRow",
    "Row",
    "SchemeRow",
    "ScorerRow",
    "SpaceRow",
    "StrategyRow",
    "find",
    "parsed_opset",
]
