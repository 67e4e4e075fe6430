"""Runners: what measures."""

from paretobit.search.runners.base import RUNNERS, Candidate, Evidence, Metric, Runner, RunnerSettings
from paretobit.search.runners.computation import BasicComputation, Bops
from paretobit.search.runners.device import PeakMemory, RooflineLatency, TableCosts
from paretobit.search.runners.evaluation import BasicEvaluation
from paretobit.search.runners.function import Evaluate, FunctionRunner
from paretobit.search.runners.latency import Latency
from paretobit.search.runners.storage import AverageBitwidth, ModelSize

__all__ = [
    "RUNNERS",
    "AverageBitwidth",
    "BasicComputation",
    "BasicEvaluation",
    "Bops",
    "Candidate",
    "Evaluate",
    "Evidence",
    "FunctionRunner",
    "Latency",
    "Metric",
    "ModelSize",
    "PeakMemory",
    "RooflineLatency",
    "Runner",
    "RunnerSettings",
    "TableCosts",
]
