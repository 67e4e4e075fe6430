"""Trying one format in one slot of one layer at a time, everything else as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.formats import FULL, Format
from paretobit.graph import at_rest
from paretobit.nn import Quantized, layer_at
from paretobit.nn.masks import masks_in, set_mask
from paretobit.passes.streaming import call, first_tensor
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.strategies.insight.groups import PRUNED, Treatments, Unit, Values
from paretobit.strategies.insight.scores import Recorder, Scores, add_fisher, divergence, labels_of, slices

KL = "kl"


@dataclass(frozen=True)
class _Trial:
    """A unit as it is applied: a format with its scales, or the mask of the weights."""

    unit: Unit
    format: Format = FULL
    mask: Tensor | None = None


class UnitTrials:
    """The units of a space, one at a time, on a prepared model.

    Args:
        space: The space.
        prepared: A private copy, from `space.prepare()`.
        treatments: What values of knobs do.
        shown: For each group, its units and the values of knobs that show them.
        around: What everything else is; full precision where None.

    Attributes:
        model: The model that harm is relative to.
        layers: Path to each layer or function that units are about.
    """

    def __init__(
        self,
        space: BoundSpace,
        prepared: nn.Module,
        treatments: Treatments,
        shown: Sequence[Mapping[Unit, Values]],
        around: Config | None,
    ) -> None:
        self._space, self._treatments, self._around = space, treatments, around
        self._trials = list(self._collected(prepared, shown))
        self._prepared = prepared
        self.model = self._rest(prepared)
        paths = dict.fromkeys(path for own in shown for path, _, _ in own)
        self.layers: dict[str, nn.Module] = {path: self.model.get_submodule(path) for path in paths}

    @property
    def relative(self) -> bool:
        """Whether harm is relative to a configuration, not to full precision."""
        return self._around is not None

    def __iter__(self) -> Iterator[Unit]:
        """Each unit, while it is applied; afterwards the model is as it was."""
        for trial in self._trials:
            path, slot, _ = trial.unit
            if trial.mask is not None:
                yield from self._pruned(trial)
                continue
            layer = self.layers[path]
            assert isinstance(layer, Quantized)
            at_rest = dict(layer.slots)
            try:
                layer.set_slots({**at_rest, slot: trial.format})
                yield trial.unit
            finally:
                layer.set_slots(at_rest)

    def references(self, batches: Iterable[Any]) -> list[Any]:
        """What full precision gives, where harm is relative to something else; before that is applied."""
        plain = self._space.plain(self._prepared, self._treatments.config())
        try:
            with at_rest(plain), torch.no_grad():
                return [first_tensor(call(plain, batch)) for batch in batches]
        finally:
            self._rest(self._prepared)

    def _pruned(self, trial: _Trial) -> Iterator[Unit]:
        assert trial.mask is not None
        layer = self.layers[trial.unit[0]]
        weight = layer.get_parameter("weight")
        graph = self._space.graph(self._treatments.config())
        original = graph.model.get_submodule(trial.unit[0]).get_parameter("weight")
        before, mask = weight.detach().clone(), masks_in(layer)["weight"].clone()
        try:
            with torch.no_grad():
                weight.copy_(original)
            set_mask(layer, trial.mask)
            yield trial.unit
        finally:
            with torch.no_grad():
                weight.copy_(before)
            set_mask(layer, mask)

    def _rest(self, prepared: nn.Module) -> nn.Module:
        if self._around is not None:
            return self._space.apply(prepared, self._around)
        return self._space.plain(prepared, self._treatments.config())

    def _collected(self, prepared: nn.Module, shown: Sequence[Mapping[Unit, Values]]) -> Iterator[_Trial]:
        """Apply configurations that show one unit of every group at a time, and look at what they set."""
        pending = [list(own.items()) for own in shown]
        for k in range(max(map(len, pending), default=0)):
            here = [own[k] for own in pending if k < len(own)]
            model = self._space.apply(prepared, self._treatments.config(*(values for _, values in here)))
            for unit, _ in here:
                path, slot, _ = unit
                if slot == PRUNED:
                    yield _Trial(unit, mask=masks_in(model.get_submodule(path))["weight"].clone())
                    continue
                layer = layer_at(model, path)
                assert layer is not None
                yield _Trial(unit, layer.slots[slot])


def fisher_scores(trials: UnitTrials, calibration: Calibration, draws: int, seed: int, rows: int) -> Scores:
    """Both tables that come from gradients, in one pass over the rows.

    Args:
        trials: The units.
        calibration: The rows.
        draws: How often labels are drawn for each row.
        seed: Of the draws.
        rows: So many at a time.

    Raises:
        BadInput: No gradient reaches the layers, or one that matters.
    """
    scores = Scores()
    parts = list(slices(calibration, rows))
    references = trials.references([batch for batch, _ in parts]) if trials.relative else [None] * len(parts)
    recorder = Recorder(trials.model, trials.layers, calibration, draws, seed)
    for (batch, target), reference in zip(parts, references, strict=True):
        calls = recorder.run(batch, target, scores, reference)
        with torch.no_grad():
            for unit in trials:
                add_fisher(calls.get(unit[0], ()), unit, scores)
    if recorder.unreached:
        _refuse_silence(trials, recorder.unreached, calibration.batches[0])
    return scores


def _refuse_silence(trials: UnitTrials, unreached: set[str], batch: Any) -> None:
    """Refuse to call layers harmless that no gradient reaches although the output depends on them."""
    with at_rest(trials.model), torch.no_grad():
        reference = first_tensor(call(trials.model, batch)).clone()
        for unit in trials:
            if unit[0] in unreached and not torch.equal(first_tensor(call(trials.model, batch)), reference):
                raise BadInput("no gradient reaches a layer that the output depends on", key=unit[0])


def kl_scores(trials: UnitTrials, calibration: Calibration) -> Scores:
    """The divergence of the model's output under each unit alone."""
    scores = Scores()
    with at_rest(trials.model), torch.no_grad():
        for batch in calibration.batches:
            reference: Any = call(trials.model, batch)
            scores.labels += labels_of(reference)
            for unit in trials:
                scores.add(KL, unit, divergence(call(trials.model, batch), reference))
    return scores
