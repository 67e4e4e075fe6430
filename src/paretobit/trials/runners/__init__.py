"""Runners: what measures."""

from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import RUNNERS, Candidate, Runner, RunnerSettings
from paretobit.trials.runners.basic_train import BasicTrain
from paretobit.trials.runners.bits import AverageBitwidth, ModelSize
from paretobit.trials.runners.computation import BasicComputation, Bops
from paretobit.trials.runners.device import PeakMemory, RooflineLatency, TableCosts
from paretobit.trials.runners.evaluation import BasicEvaluation
from paretobit.trials.runners.function import Evaluate, FunctionRunner
from paretobit.trials.runners.language import Perplexity
from paretobit.trials.runners.latency import Latency
from paretobit.trials.runners.stored import StoredBytes
from paretobit.trials.runners.user_file import FileRunner
from paretobit.wanted.metric import Metric
