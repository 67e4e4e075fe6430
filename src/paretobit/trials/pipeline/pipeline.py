"""From a configuration to a trained model: the steps of a trial, one after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from paretobit.errors import BadInput
from paretobit.formats import ScaledInteger
from paretobit.graph import ModelGraph
from paretobit.graph.copies import copy_of
from paretobit.graph.restore import undone
from paretobit.nn.quantized import formats_of
from paretobit.passes.layers.assignment import Assignment
from paretobit.passes.transform.batch_norm import reestimate_batch_norm
from paretobit.runtime import derive_seed, seed_everything
from paretobit.spaces import BoundSpace, Space
from paretobit.spaces.knobs import Config
from paretobit.training import Epoch, fit
from paretobit.training.distillation import Distillation
from paretobit.trials.evidence import Evidence
from paretobit.trials.halving import Bar, Losses
from paretobit.trials.pipeline.scratch import draw_anew
from paretobit.trials.pipeline.stages import CONTROL, EPOCHS, measures_stages, stage_name
from paretobit.trials.runners import Candidate, Runner
from paretobit.trials.steps import CALIBRATE, EVALUATE, TRAINS, PipelineSettings, TrainingStep
from paretobit.wanted.objectives import Metrics

LossesOf = Callable[[Metrics], Losses | None]


@dataclass(frozen=True)
class Made:
    """What became of a configuration.

    Attributes:
        model: Trained and compressed, in evaluation mode.
        metrics: What was measured; only the last known ones where it was ended.
        curve: Every epoch, of all steps that train.
        ended: Whether it fell behind and was ended.
        graph: Of the model in full precision, with the weights that it trained.
    """

    model: nn.Module
    metrics: Mapping[str, float]
    curve: tuple[Epoch, ...]
    ended: bool
    graph: ModelGraph


class Pipeline:
    """The steps of every trial of a search.

    A trial works on a copy of its own: nothing that it trains is left to the next one.

    Args:
        space: What varies.
        bound: The same over the model.
        evidence: Graph and data; its model is never changed.
        settings: With steps.
        runners: What measures.
    """

    def __init__(
        self, space: Space, bound: BoundSpace, evidence: Evidence, settings: PipelineSettings, runners: Sequence[Runner]
    ) -> None:
        self.settings, self.evidence, self.bound = settings, evidence, bound
        self.spaces = space.parts
        self.runners = [runner for runner in runners if not runner.cheap]
        self.at_stages = [runner for runner in self.runners if measures_stages(runner)]

    def run(self, config: Config | None, seed: int, cheap: Metrics, bar: Bar | None, losses: LossesOf | None) -> Made:
        """Make and measure the model of a configuration.

        Args:
            config: None: the unmodified model, trained alike and compressed by nothing.
            seed: Of everything random.
            cheap: The metrics that need no model.
            bar: What it is compared with after some epochs; None: it is not.
            losses: What objectives make of metrics; None where one is missing.
        """
        return _Making(self, config, seed, cheap, bar, losses).made()

    def training_settings(self, step: str, config: Config | None) -> TrainingStep:
        """The settings of a step that trains, under a configuration."""
        given: TrainingStep = getattr(self.settings, step)
        return given if config is None else self.bound.train_settings(step, given, config)


@dataclass
class _Making:
    """A model in the making."""

    pipeline: Pipeline
    config: Config | None
    seed: int
    cheap: Metrics
    bar: Bar | None
    losses: LossesOf | None
    curve: list[Epoch] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    ended: bool = False
    formats: Assignment = field(default_factory=dict)
    uncompressed: nn.Module | None = None
    learned: bool = False
    applied: list[Space] = field(default_factory=list)

    def __post_init__(self) -> None:
        evidence, bound = self.pipeline.evidence, self.pipeline.bound
        self.graph = evidence.graph if self.config is None else bound.graph(self.config)
        self.model = copy_of(self.graph.model).eval()
        self.trained = self.pipeline.settings.weights != "scratch"
        if not self.trained:
            draw_anew(self.model, derive_seed(self.seed, "weights"))

    def made(self) -> Made:
        """Take every step, or as many as it is given."""
        steps = self.pipeline.settings.steps
        for step, then in zip(steps, [*steps[1:], None], strict=True):
            if step in TRAINS:
                self._train(step)
            elif step == CALIBRATE:
                self._calibrate()
            elif step != EVALUATE:
                self._compress(step)
            if self.ended:
                break
            if then == EVALUATE and step in self.pipeline.settings.stages:
                self._note(step, self.model)
        metrics = self._last_known() if self.ended else self._measured(self.pipeline.runners, self.model)
        graph = self.graph.with_model(self._as_float())
        return Made(self.model.eval(), metrics, tuple(self.curve), self.ended, graph)

    # Steps

    def _train(self, step: str) -> None:
        self._step = step
        settings = self.pipeline.training_settings(step, self.config)
        teacher = self._teacher(settings)
        if step == "finetune" and self.pipeline.settings.control and self.uncompressed is not None:
            control = copy_of(self.uncompressed)
            self._fit(control, settings, step, teacher, lambda _: None)
            self._note(CONTROL, control)
        self._fit(self.model, settings, step, teacher, self._after_epoch)
        self.trained = True

    def _fit(
        self,
        model: nn.Module,
        settings: TrainingStep,
        step: str,
        teacher: nn.Module | None,
        on_epoch: Callable[[Epoch], bool | None],
    ) -> None:
        evidence = self.pipeline.evidence
        learned = settings.learned_scales and _has_scales(model)  # the baseline has none, nor need a trial
        changes: dict[str, Any] = {"seed": derive_seed(self.seed, step), "learned_scales": learned}
        self.learned = self.learned or learned
        loss = None if evidence.calibration is None else evidence.calibration.loss
        fit(
            model,
            evidence.split("train"),
            evidence.splits.get("val"),
            settings.plain.model_copy(update=changes),
            augment=evidence.augment,
            loss=loss,
            teacher=teacher,
            distillation=settings.teacher if isinstance(settings.teacher, Distillation) else None,
            on_epoch=on_epoch,
        )
        model.cpu()

    def _after_epoch(self, epoch: Epoch) -> bool:
        """Note an epoch; whether the trial ends with it."""
        self.curve.append(replace(epoch, number=len(self.curve) + 1))
        if self.bar is None or self.losses is None or self._last_epoch(epoch):
            return False
        losses = self.losses(self._last_known())
        if losses is None:
            raise BadInput("an objective is not known after an epoch", key="stop", allowed="accuracy, loss, costs")
        self.ended = self.bar.ends(len(self.curve), losses)
        return self.ended

    def _last_epoch(self, epoch: Epoch) -> bool:
        """Whether no training is left: there is nothing to save by ending the trial."""
        last = [step for step in self.pipeline.settings.steps if step in TRAINS][-1]
        return self._step == last and epoch.number >= self.pipeline.training_settings(last, self.config).max_epochs

    def _compress(self, step: str) -> None:
        """Apply the spaces of a step, bound to the weights as they are now: masks and scales are theirs.

        Spaces that make the shape have done so before the first step.
        """
        spaces = [space for space in self.pipeline.spaces if space.acts_at().stage == "compress"]
        for space in (space for space in spaces if space.acts_at().word == step):
            if self.uncompressed is None:
                self.uncompressed = copy_of(self.model)
            if self.config is None or (part := self._bound_now(space, self.config)) is None:
                continue
            part.instrument(self.model)
            self.model = part.apply(self.model, self.config)
            self.applied.append(space)
            self.formats = {**self.formats, **part.formats(self.config)}

    def _calibrate(self) -> None:
        """Statistics and fixed scales from the calibration rows; or the correction that the space chooses."""
        settings, calibration = self.pipeline.settings.calibrate, self.pipeline.evidence.calibration
        if calibration is None:
            allowed = "data with a split to train on"
            raise BadInput("the step calibrate needs calibration rows", key="calibration", allowed=allowed)
        correcting = [space for space in self.pipeline.spaces if space.acts_at().stage == "calibrate"]
        if not self._apply_again(correcting) and settings.batch_norm:
            reestimate_batch_norm(self.model, calibration.batches)
        if settings.scales and not self.learned:
            self._apply_again([space for space in self.applied if space.scales_from_data])

    def _apply_again(self, spaces: Sequence[Space]) -> bool:
        """Apply spaces for which the model is ready; whether there were any that act on it."""
        config = self.config
        bound = [] if config is None else [self._bound_now(space, config) for space in spaces]
        for part in filter(None, bound):
            part.apply(self.model, config)
        return any(bound)

    def _bound_now(self, space: Space, config: Config) -> BoundSpace | None:
        """A space over the model with the weights that it has now; None where it is about other networks."""
        fitted = self.pipeline.bound.fitted(space, config)
        if fitted is None:
            return None
        graph = self.graph.with_model(self._as_float())
        known = self.pipeline.evidence.calibration
        if fitted.scales_from_data and not self.trained:
            known = None  # what flows through an untrained model says nothing of scales
        return fitted.bind(graph, known)

    def _as_float(self) -> nn.Module:
        """The model without formats and masks, with the weights that it has now."""
        plain = copy_of(self.graph.model)
        now = {**dict(self.model.named_buffers()), **self.model.state_dict()}  # masks settle what is taken
        with torch.no_grad():
            for name, tensor in (*plain.named_parameters(), *plain.named_buffers()):
                if name in now:
                    tensor.copy_(now[name])
        return plain

    def _teacher(self, settings: TrainingStep) -> nn.Module | None:
        if settings.teacher is False:
            return None
        known = self.pipeline.evidence.graph.model if self.uncompressed is None else self.uncompressed
        return copy_of(known).eval()

    # Figures

    def _note(self, stage: str, model: nn.Module) -> None:
        found = self._measured(self.pipeline.at_stages, model, with_stages=False)
        self.stages |= {stage_name(metric, stage): value for metric, value in found.items()}

    def _measured(self, runners: Sequence[Runner], model: nn.Module, with_stages: bool = True) -> dict[str, float]:
        stages = {**self.stages, EPOCHS: float(len(self.curve))} if with_stages else {}
        candidate = Candidate(self.formats, model.eval(), self.seed, stages=stages)
        found: dict[str, float] = {}
        for runner in runners:
            seed_everything(derive_seed(self.seed, "measure"))
            with undone(model):
                found |= runner.measure_once(candidate)
        return found

    def _last_known(self) -> dict[str, float]:
        """Metrics after the last epoch: those of a model that was not trained to the end."""
        last = self.curve[-1]
        known: dict[str, Any] = {"accuracy": last.val_accuracy, "loss": last.val_loss}
        found = {name: float(value) for name, value in known.items() if value is not None}
        return {**self.cheap, **found, **self.stages, EPOCHS: float(len(self.curve))}


def _has_scales(model: nn.Module) -> bool:
    """Whether any layer carries a format whose scale can be learned."""
    return any(isinstance(f, ScaledInteger) for slots in formats_of(model).values() for f in slots.values())
