"""Spaces, strategies, runners, and the study that remembers."""

from paretobit.search.engine import Progress, SearchLoop, SerialEngine
from paretobit.search.knobs import Config, Knob, Option, Tree
from paretobit.search.objectives import Constraint, Objective, Question
from paretobit.search.problem import Problem, Wanted
from paretobit.search.runners import RUNNERS, Candidate, Evidence, Metric, Runner
from paretobit.search.spaces import (
    SPACES,
    Architecture,
    BoundSpace,
    ChannelMultiplier,
    Correct,
    Product,
    Prune,
    Quantize,
    Space,
    Training,
)
from paretobit.search.strategies import STRATEGIES, Strategy
from paretobit.search.studies.study import Study
from paretobit.search.trial import Trial, Workbench

__all__ = [
    "RUNNERS",
    "SPACES",
    "STRATEGIES",
    "Architecture",
    "BoundSpace",
    "Candidate",
    "ChannelMultiplier",
    "Config",
    "Constraint",
    "Correct",
    "Evidence",
    "Knob",
    "Metric",
    "Objective",
    "Option",
    "Problem",
    "Product",
    "Progress",
    "Prune",
    "Quantize",
    "Question",
    "Runner",
    "SearchLoop",
    "SerialEngine",
    "Space",
    "Strategy",
    "Study",
    "Training",
    "Tree",
    "Trial",
    "Wanted",
    "Workbench",
]
