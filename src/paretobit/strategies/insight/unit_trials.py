"""Trying one format in one slot of one layer at a time, everything else as it was."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.data.calibration import Calibration
from paretobit.errors import BadInput
from paretobit.formats import Format
from paretobit.graph import at_rest
from paretobit.nn import layer_at
from paretobit.nn.masks import masks_in
from paretobit.passes.streaming import call, first_tensor
from paretobit.spaces import BoundSpace
from paretobit.spaces.knobs import Config
from paretobit.strategies.insight.alone import Change, Runs
from paretobit.strategies.insight.groups import PRUNED, Treatments, Unit, Values
from paretobit.strategies.insight.scores import Recorder, Scores, add_fisher, divergence, labels_of, slices

KL = "kl"


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
        graph: Of the float model of the same shape.
        changes: What each unit does.
    """

    def __init__(
        self,
        space: BoundSpace,
        prepared: nn.Module,
        treatments: Treatments,
        shown: Sequence[Mapping[Unit, Values]],
        around: Config | None,
    ) -> None:
        self._space, self._prepared, self._treatments, self._around = space, prepared, treatments, around
        self.graph = space.graph(treatments.config())
        found = dict(self._collected(shown))
        self.model = self._set(around)
        self.changes = {unit: self._change(*unit[:2], what) for unit, what in found.items()}

    def references(self, batches: Sequence[Any]) -> list[Tensor | None]:
        """What full precision gives, where harm is relative to something else."""
        if self._around is None:
            return [None] * len(batches)
        plain = self._set(None)
        try:
            with at_rest(plain), torch.no_grad():
                return [first_tensor(call(plain, batch)) for batch in batches]
        finally:
            self._set(self._around)

    def _set(self, config: Config | None) -> nn.Module:
        if config is not None:
            return self._space.apply(self._prepared, config)
        return self._space.plain(self._prepared, self._treatments.config())

    def _collected(self, shown: Sequence[Mapping[Unit, Values]]) -> Iterator[tuple[Unit, Format | Tensor]]:
        """Apply configurations that show one unit of every group at a time: the formats and masks they set."""
        pending = [list(own.items()) for own in shown]
        for k in range(max(map(len, pending), default=0)):
            here = [own[k] for own in pending if k < len(own)]
            model = self._space.apply(self._prepared, self._treatments.config(*(values for _, values in here)))
            for unit, _ in here:
                path, slot, _ = unit
                if slot == PRUNED:
                    yield unit, masks_in(model.get_submodule(path))["weight"].clone()
                else:
                    layer = layer_at(model, path)
                    assert layer is not None
                    yield unit, layer.slots[slot]

    def _change(self, path: str, slot: str, what: Format | Tensor) -> Change:
        layer = self.model.get_submodule(path)
        if isinstance(what, Format):
            return Change(layer, {slot: what})
        return Change(layer, pruned=(self.graph.model.get_submodule(path).get_parameter("weight"), what))


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
    references = trials.references([batch for batch, _ in parts])
    layers = [change.layer for change in trials.changes.values()]
    recorder = Recorder(trials.model, layers, calibration, draws, seed)
    for (batch, target), reference in zip(parts, references, strict=True):
        calls = recorder.run(batch, target, scores, reference)
        with torch.no_grad():
            for unit, change in trials.changes.items():
                with change.applied():
                    add_fisher(calls[change.layer], unit, scores)
    if recorder.unreached:
        _refuse_silence(trials, recorder.unreached, calibration.batches[0])
    return scores


def _refuse_silence(trials: UnitTrials, unreached: set[nn.Module], batch: Any) -> None:
    """Refuse to call layers harmless that no gradient reaches although the output depends on them."""
    with at_rest(trials.model), torch.no_grad():
        reference = first_tensor(call(trials.model, batch)).clone()
        for (path, _, _), change in trials.changes.items():
            if change.layer in unreached:
                with change.applied():
                    output = first_tensor(call(trials.model, batch))
                if not torch.equal(output, reference):
                    raise BadInput("no gradient reaches a layer that the output depends on", key=path)


def kl_scores(trials: UnitTrials, calibration: Calibration) -> Scores:
    """The divergence of the model's output under each unit alone."""
    scores = Scores()
    run = Runs(trials.graph, trials.model)
    with at_rest(trials.model), torch.no_grad():
        for batch in calibration.batches:
            reference = run(batch)
            scores.labels += labels_of(reference)
            for unit, change in trials.changes.items():
                with change.applied():
                    scores.add(KL, unit, divergence(run(batch), reference))
    return scores
