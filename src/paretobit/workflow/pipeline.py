"""The steps of a search's trials, from settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from paretobit.document import Document, validate
from paretobit.errors import BadInput, located, under
from paretobit.graph.copies import copy_of
from paretobit.runtime import seeded
from paretobit.spaces import BoundSpace, Space
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.training import TrainSettings, check_fit
from paretobit.trials.evidence import Evidence
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.pipeline.scratch import draw_anew
from paretobit.trials.pipeline.stages import StageRunner
from paretobit.trials.runners import BasicEvaluation, BasicTrain, Runner
from paretobit.trials.steps import TRAINS, PipelineSettings, TrainingStep
from paretobit.wanted.wanted import Wanted

PLACE = "search.pipeline"
_AFTER_AN_EPOCH = ("accuracy", "loss", "epochs")


def steps_of(
    table: Mapping[str, Any] | None,
    space: Space,
    runners: Sequence[Runner],
    document: Document,
    train: TrainSettings | None = None,
    *,
    has_weights: bool = True,
) -> PipelineSettings | None:
    """The steps that a trial takes, by the table `[search.pipeline]`; None where it trains nothing.

    What is set in `train`, which is `[train]`, holds for the step `train` where that does not say otherwise.
    `has_weights` says whether the model has weights to start from; `basic_train` may be among the runners.

    Raises:
        BadInput: The steps make no sense, or do not go with the space.
    """
    basic = next((runner.step for runner in runners if isinstance(runner, BasicTrain)), None)
    measured = any(isinstance(runner, BasicEvaluation) for runner in runners)
    needed = basic is not None or any(
        part.acts_at().stage == "train" or (measured and part.needs_training) for part in space.parts
    )
    if table is None and not needed:
        return None
    given = dict(table or {})
    with document.placing(PLACE):
        if basic is not None and "train" in given:
            raise BadInput("the training is given twice: here, and as settings of basic_train", key="train")
        if not isinstance(given.get("train", {}), Mapping):
            raise BadInput("not a table", key="train", found=given["train"])
        first = {} if train is None else train.model_dump(exclude_unset=True, exclude={"seed"})
        first |= given.get("train", {}) if basic is None else basic.model_dump(exclude_unset=True)
        if first and "train" in given.get("steps", ["train"]):
            given["train"] = first
        return validate(PipelineSettings, given, document, PLACE).completed(
            space.parts, has_weights or basic is not None
        )


def make_pipeline(
    settings: PipelineSettings | None,
    space: Space,
    bound: BoundSpace,
    evidence: Evidence,
    runners: Sequence[Runner],
    wanted: Wanted,
    *,
    has_weights: bool,
) -> tuple[Pipeline | None, tuple[Runner, ...]]:
    """The steps over one model, and the runners with one more, which tells what happened on the way.

    Without settings (they come from `steps_of`) trials train nothing, and the runners stay as they are.
    `has_weights` says whether the model has weights to start from.

    Raises:
        BadInput: The model cannot be trained so, or the data is not enough.
    """
    if settings is None:
        return None, tuple(runners)
    weights = settings.weights or ("given" if has_weights else "scratch")
    settings = settings.model_copy(update={"weights": weights})
    with located(key=PLACE):
        bound.check_steps(_trainable(settings, evidence))
        _check_shapes(space, bound)
        if settings.stop is not None:
            _check_stop(settings, evidence, runners, wanted)
    runners = (*runners, StageRunner(evidence, settings, runners))
    return Pipeline(space, bound, evidence, settings, runners), runners


def _trainable(settings: PipelineSettings, evidence: Evidence) -> dict[str, TrainingStep]:
    """The steps that train; that the model and the data allow them is seen to."""
    if settings.trains and "train" not in evidence.splits:
        raise BadInput("trials that train need rows to train on", key="train", allowed="train=(x, y)")
    model = copy_of(evidence.graph.model)
    if settings.weights == "scratch":
        draw_anew(model, 0)
    steps: dict[str, TrainingStep] = {s: getattr(settings, s) for s in settings.steps if s in TRAINS}
    loss = None if evidence.calibration is None else evidence.calibration.loss
    for step, own in steps.items():
        if loss is not None:
            continue  # of the user's own: known once it runs
        with seeded(0), under(f"{PLACE}.{step}", TrainingStep.model_fields):
            # Without scales to learn: a model has formats in its trial only.
            plain = own.plain.model_copy(update={"learned_scales": False})
            check_fit(model, evidence.split("train"), evidence.splits.get("val"), plain)
    return steps


def _check_shapes(space: Space, bound: BoundSpace) -> None:
    """A space that changes shapes must say so in its step, or what comes before it had another shape."""
    stages = {part.name: part.acts_at().stage for part in space.parts}
    for name, part in bound.parts(bound.tree.at(0)).items():
        if part.changes_shapes != (stages[name] == "shape"):
            problem = f"the space '{name}' and its step do not agree on whether it changes shapes"
            raise BadInput(problem, key="steps", found=stages[name], allowed="shape, where it does")


def _check_stop(settings: PipelineSettings, evidence: Evidence, runners: Sequence[Runner], wanted: Wanted) -> None:
    """What is compared after an epoch must be known after it."""
    if not settings.trains:
        raise BadInput("there is no training to stop", key=f"{PLACE}.stop", allowed=list(TRAINS))
    cheap = {name for r in runners for m in r.metrics if m.cheap for name in (m.name, m.short) if name}
    known = cheap.union(_AFTER_AN_EPOCH)
    for objective in wanted.objectives:
        for metric in objective.metrics:
            if metric not in known:
                problem = "an objective is not known after an epoch, so nothing can be stopped by it"
                raise BadInput(problem, key=f"{PLACE}.stop", found=metric, allowed=sorted(known))
    for runner in runners:
        if not isinstance(runner, BasicEvaluation):
            continue
        if runner.split != "val" or runner.samples != len(evidence.split("val")[1]):
            problem = "trials are stopped by all rows of the validation split, and measured on others"
            raise BadInput(problem, key=f"{PLACE}.stop", found=f"{runner.samples} rows of {runner.split}")


def check_strategy(name: str, pipeline: Pipeline | None) -> None:
    """Refuse a strategy that learns from weights that no trial starts from.

    Raises:
        BadInput: It is `guided`, and trials start from scratch.
    """
    if name == "guided" and pipeline is not None and pipeline.settings.weights == "scratch":
        problem = "guided asks the given weights which layer matters, and trials start from scratch"
        raise BadInput(problem, key="search.strategy", found=name, allowed=[*SAMPLERS, "brute_force"])
