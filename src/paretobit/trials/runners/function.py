"""A user's own measurement as a runner."""

import copy
import numbers
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners.base import Candidate, Runner, RunnerSettings
from paretobit.wanted.metric import Metric

Evaluate = Callable[[nn.Module], Mapping[str, float]]


class FunctionRunner(Runner):
    """Runs a user's `evaluate(model) -> {name: value}`.

    Args:
        evidence: Not looked at.
        evaluate: The function; it is given the model in evaluation mode.
        directions: Metric to direction, for those that are objectives.
    """

    metrics_from_running = True
    may_change_model = True

    def __init__(self, evidence: Evidence, evaluate: Evaluate, directions: Mapping[str, Any]) -> None:
        super().__init__(evidence, RunnerSettings())
        self._evaluate = evaluate
        self._directions = dict(directions)
        self.metrics: tuple[Metric, ...] = ()  # known once the baseline was measured

    @property
    def identity(self) -> dict[str, Any]:
        """The function's name: what it computes cannot be compared."""
        function = getattr(self._evaluate, "__qualname__", type(self._evaluate).__qualname__)
        return {"runner": type(self).__name__, "function": function}

    @property
    def cheap(self) -> bool:
        """Never: it runs the model."""
        return False

    def on(self, graph: ModelGraph) -> Runner:
        """The same function, which is given whatever model there is."""
        other = copy.copy(self)
        other.evidence = replace(self.evidence, graph=graph)
        return other

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Call the function and check what it returned.

        Raises:
            BadInput: It returned something else than names and numbers.
        """
        result = self._evaluate(candidate.applied)
        if not isinstance(result, Mapping) or not result:
            raise BadInput("evaluate returned no metrics", key="evaluate", found=result, allowed="{name: number}")
        metrics = {}
        for name, value in result.items():
            number = _scalar(value)
            if not isinstance(name, str) or not isinstance(number, numbers.Real):
                raise BadInput("not a metric", key="evaluate", found={name: value}, allowed="{name: number}")
            metrics[name] = float(number)
        if not self.metrics:
            self.metrics = tuple(
                Metric(name, self._directions.get(name, "minimize"), "as evaluated") for name in metrics
            )
        return metrics


def _scalar(value: Any) -> Any:
    """The number in a tensor or array of one element; anything else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (RuntimeError, ValueError):  # more than one element
        return value
