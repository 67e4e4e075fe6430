"""A search from settings: data, model, training where there is no checkpoint, search, results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace

from paretobit.data import Data
from paretobit.document import Document
from paretobit.errors import StudyError
from paretobit.session.engines.execution import Execution
from paretobit.studies.study import Study
from paretobit.training import Epoch
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.runners import FunctionRunner
from paretobit.trials.vocabulary import check_before_work
from paretobit.workflow.assemble import (
    build_model,
    choose_strategy,
    default_strategy,
    evidence_for,
    make_runners,
    make_space,
    splits_of,
)
from paretobit.workflow.pipeline import check_strategy, make_pipeline, steps_of
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.search import OnTrial, Search, execute
from paretobit.workflow.settings import Settings
from paretobit.workflow.train import check_trainable, load_data, manifest, train


@dataclass(frozen=True)
class Assembled:
    """A search and the data it runs on."""

    search: Search
    data: Data


def assemble(settings: Settings, document: Document, begun: bool = False) -> Assembled:
    """Everything a search needs, checked; without a checkpoint the model is untrained.

    A search that has begun needs no trials of another one.
    """
    asked = settings.search
    wanted = asked.wanted()
    execution = Execution(asked.workers, asked.engine, asked.timeout, asked.trial_timeout, asked.max_failures)
    space = make_space(asked.space, document)
    data = load_data(settings)
    model = build_model(settings.model, data, settings.seed)
    splits = splits_of(data)
    evidence = evidence_for(model, splits, calibration=asked.calibration, loss=asked.loss)
    evidence = replace(evidence, augment=data.augment)
    runners = make_runners(asked.runners or None, evidence, asked.evaluate, wanted.directions, document)
    steps = steps_of(asked.pipeline, space, runners, document, settings.train, has_weights=settings.model.given)
    with document.placing("search.space"):
        bound = space.bind(evidence.graph, evidence.calibration)
    has_weights = settings.model.given or steps is None or not steps.from_nothing
    pipeline, runners = make_pipeline(steps, space, bound, evidence, runners, wanted, has_weights=has_weights)
    check_before_work(wanted, runners, asked.best)
    if trains_first(settings, pipeline):
        check_trainable(model, data, settings.train)
    name, strategy, n_trials = choose_strategy(
        asked.strategy,
        asked.n_trials,
        bound.tree,
        wanted,
        document,
        default="optuna" if steps else default_strategy(bound, wanted, runners),
    )
    check_strategy(name, pipeline)
    search = Search(
        model=model,
        splits=splits,
        evidence=evidence,
        space=bound,
        runners=runners,
        wanted=wanted,
        strategy=name,
        strategy_settings=strategy,
        n_trials=n_trials,
        seed=settings.seed,
        execution=execution,
        eval_mode=asked.eval_mode,
        given=None if begun or asked.warm_start is None else Study.open(asked.warm_start),
        best=asked.best,
        space_name=space.name,
        saved_with=manifest(settings, data),
        pipeline=pipeline,
    )
    return Assembled(search, data)


def run(
    settings: Settings,
    document: Document,
    folder: RunFolder,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_trial: OnTrial | None = None,
    on_start: Callable[[Search], None] | None = None,
    on_judged: Callable[[int, int], None] | None = None,
    extend: bool = False,
) -> Study:
    """Search from settings into a run folder; a folder with a study goes on where it stopped.

    Without a checkpoint the model is trained first, into `float/`. With `extend`, a study of another
    space is set aside and its trials that are still valid are taken over. What a user's model prints goes
    to standard error.

    Raises:
        BadInput: Before any work and before anything is written.
    """
    begun = folder.begun
    if begun:
        _check_training(settings, folder)
    with redirect_stdout(sys.stderr):
        assembled = assemble(settings, document, begun)
        search = assembled.search
        search.on_judged = on_judged
        trains = trains_first(settings, search.pipeline)
        search.check_given(trained=not trains)
        if not begun and any(isinstance(runner, FunctionRunner) for runner in search.runners):
            search.check_baseline()
        folder.create()
        with folder.locked():
            if not begun:
                folder.write_config(settings.resolved())
            if trains:
                trained = train(
                    settings, folder.float_model, data=assembled.data, resume=True, on_epoch=on_epoch
                )
                search.model.load_state_dict(trained.model.state_dict())
            if on_start:
                on_start(search)
            return execute(search, folder, on_trial, lambda: folder.write_config(settings.resolved()), extend)


def trains_first(settings: Settings, pipeline: Pipeline | None) -> bool:
    """Whether the model is trained before the search: it has no weights, and trials do not train it."""
    return not settings.model.given and (pipeline is None or not pipeline.settings.from_nothing)


def _check_training(settings: Settings, folder: RunFolder) -> None:
    """Refuse to train the model of a search that has begun in another way.

    Raises:
        StudyError: What differs is named.
    """
    if settings.model.given or not folder.config.exists():
        return
    recorded = Settings.from_document(Document.read(folder.config))
    for section in ("model", "data", "train"):
        there, here = (getattr(s, section).model_dump() for s in (recorded, settings))
        for key, value in here.items():
            if there[key] != value:
                raise StudyError(
                    f"the study is another search's: its {section}.{key} is {there[key]}, not {value}"
                )
