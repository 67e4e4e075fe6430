"""The space `correct`: what is put right after quantisation and pruning, from calibration rows.

One knob, `correction`: nothing; the running statistics of BatchNorm estimated again; or biases that
take the mean error off. It changes no cost. Which of them helps differs from point to point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.graph import ModelGraph
from paretobit.passes.transform import correct_biases, reestimate_batch_norm
from paretobit.passes.transform.bias_correction import OutputMeans, correctable, output_means
from paretobit.spaces.base import SPACES, BoundSpace, Dropped, Space, Step, Weights
from paretobit.spaces.knobs import Config, Knob, Tree

KNOB = "correction"
Correction = Literal["none", "batch_norm", "bias"]


@SPACES.register("correct")
class Correct(Space):
    """Whether, and how, the model of a configuration is corrected; goes with other spaces.

    Args:
        options: Some of `none`, `batch_norm`, `bias`. One alone is applied always and is no knob.

    Raises:
        BadInput: An unknown option, or none.
    """

    name: ClassVar[str] = "correct"
    step: ClassVar[Step | None] = Step("calibrate", "calibrate")
    goes_last: ClassVar[bool] = True

    def __init__(self, *, options: Sequence[Correction] = ("none", "batch_norm")) -> None:
        self.check(options=options)
        if not options:
            raise BadInput("no corrections to choose from", key="options", found=[], allowed=get_args(Correction))
        self.options = tuple(options)

    def bind(self, graph: ModelGraph, calibration: Calibration | None = None) -> BoundCorrect:
        """The space over one model.

        Raises:
            BadInput: There are no calibration rows.
        """
        return BoundCorrect(self, graph, calibration)

    @staticmethod
    def explain(described: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """`{"correction": {"config": {"name": "batch_norm"}}}`."""
        chosen = config.get(KNOB, described["options"][0])
        return {KNOB: {"config": {"name": chosen}}}


class BoundCorrect(BoundSpace):
    """The space `correct` over one model."""

    name = Correct.name

    def __init__(self, space: Correct, graph: ModelGraph, calibration: Calibration | None) -> None:
        super().__init__(graph)
        if calibration is None:
            allowed = "data with a split to train on, or calibration="
            raise BadInput("a correction needs calibration rows", key="options", allowed=allowed)
        self._calibration = calibration
        found = [(option, self._no_effect(option)) for option in space.options]
        self._options = tuple(option for option, reason in found if reason is None)
        self.dropped = tuple(Dropped(f"{KNOB}.{option}", reason) for option, reason in found if reason)
        self.tree = Tree((Knob.of(KNOB, list(self._options)),) if len(self._options) > 1 else ())
        self.matched, self.unmatched = (), tuple(node.name for node in graph.layers)
        self._means: OutputMeans | None = None

    def apply(self, prepared: nn.Module, config: Config | None) -> nn.Module:
        """Take back what was corrected before, then correct the model as it is now."""
        self._restore(prepared)
        chosen = "none" if config is None or not self._options else config.get(KNOB, self._options[0])
        if chosen == "batch_norm":
            reestimate_batch_norm(prepared, self._calibration.batches)
        elif chosen == "bias":
            if self._means is None:
                self._means = output_means(self._graph.model, self._calibration.batches)
            correct_biases(prepared, self._means, self._calibration.batches)
        return prepared

    def weights(self, config: Config) -> Weights:
        return {}

    def describe(self) -> dict[str, Any]:
        return {"options": list(self._options or ("none",))}

    def _no_effect(self, option: str) -> str | None:
        if option == "batch_norm" and not self._norms():
            return "the model has no BatchNorm with running statistics"
        if option == "bias" and not correctable(self._graph.model):
            return "no linear or convolution layer has a bias"
        return None

    def _norms(self) -> list[str]:
        modules = self._graph.model.named_modules()
        return [n for n, m in modules if isinstance(m, _BatchNorm) and m.running_mean is not None]

    def _restore(self, prepared: nn.Module) -> None:
        """Statistics and biases of the float model; where they are in place, nothing is touched."""
        original = self._graph.model
        names = [f"{name}.{part}" for name in self._norms() for part in ("running_mean", "running_var")]
        pairs = [(prepared.get_buffer(name), original.get_buffer(name)) for name in names]
        if "bias" in self._options:
            biases = [f"{name}.bias" for name in correctable(original)]
            pairs += [(prepared.get_parameter(name), original.get_parameter(name)) for name in biases]
        with torch.no_grad():
            for there, wanted in pairs:
                if not torch.equal(there, wanted):
                    there.copy_(wanted)
