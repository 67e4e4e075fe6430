"""Runners: what measures."""

from paretobit.search.runners.base import RUNNERS, Candidate, Evidence, Metric, Runner, RunnerSettings
from paretobit.search.runners.computation import BasicComputation, Bops
from paretobit.search.runners.device import PeakMemory, RooflineLatency, TableCosts
from paretobit.search.runners.evaluation import BasicEvaluation
from paretobit.search.runners.function import Evaluate, FunctionRunner
from paretobit.search.runners.language import Perplexity
from paretobit.search.runners.latency import Latency
from paretobit.search.runners.storage import AverageBitwidth, ModelSize
from paretobit.search.runners.stored import StoredBytes
from paretobit.search.runners.training import BasicTrain
from paretobit.search.runners.user_file import FileRunner

__all__ = [
    "RUNNERS",
    "AverageBitwidth",
    "BasicComputation",
    "BasicEvaluation",
    "BasicTrain",
    "Bops",
    "Candidate",
    "Evaluate",
    "Evidence",
    "FileRunner",
    "FunctionRunner",
    "Latency",
    "Metric",
    "ModelSize",
    "PeakMemory",
    "Perplexity",
    "RooflineLatency",
    "Runner",
    "RunnerSettings",
    "StoredBytes",
    "TableCosts",
]
