"""`paretobit.search`: the main job from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from paretobit.data.calibration import Loss
from paretobit.document import Document, validate
from paretobit.errors import BadInput
from paretobit.graph import Example
from paretobit.runtime import is_reference, seeded
from paretobit.session.engines.execution import Execution
from paretobit.spaces import Space
from paretobit.studies.study import Study
from paretobit.trials.vocabulary import check_before_work
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.assemble import (
    DEFAULT_CALIBRATION,
    Given,
    Pair,
    choose_strategy,
    default_strategy,
    evidence_for,
    make_runners,
    splits_from,
)
from paretobit.workflow.pipeline import check_strategy, make_pipeline, steps_of
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.search import OnTrial, Search, execute
from paretobit.workflow.settings import ForgivingSettings


def search(
    model: nn.Module,
    *,
    space: Space,
    maximize: str | Sequence[str] = (),
    minimize: str | Sequence[str] = (),
    subject_to: str | Sequence[str] = (),
    forgiving: Mapping[str, Any] | None = None,
    train: Pair | None = None,
    val: Pair | None = None,
    test: Pair | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | str | None = None,
    example: Example | None = None,
    calibration: Given = DEFAULT_CALIBRATION,
    loss: Loss | str | None = None,
    runners: Mapping[str, Mapping[str, Any]] | None = None,
    pipeline: Mapping[str, Any] | None = None,
    strategy: str | Mapping[str, Any] | None = None,
    n_trials: int | None = None,
    timeout: float | None = None,
    seed: int = 0,
    best: str | None = None,
    workers: int = 1,
    engine: str | None = None,
    trial_timeout: float | None = None,
    max_failures: int | None = None,
    eval_mode: bool = True,
    warm_start: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    extend: bool = False,
    on_trial: OnTrial | None = None,
) -> Study:
    """Search what may vary in a model; the model itself is never changed.

    Args:
        model: Any module.
        space: What may vary.
        maximize: Metrics to maximise; also `accuracy forgiving 8% per halved bitops`.
        minimize: Metrics to minimise.
        subject_to: Constraints: `accuracy >= baseline - 0.01`. What needs no model rejects a
            configuration before the model runs.
        forgiving: A quality and the cost that is traded for it, as the first objective: the keys of
            `[search.forgiving]`, `{"metric": "accuracy", "cost": "bitops", "delta": 0.08}`.
        train: Inputs and labels the model was trained on, tensors or arrays, rows first.
        val: Inputs and labels that choose.
        test: Inputs and labels that only judge the front.
        evaluate: Measures a model in place of `val`: regression, detection. A function, or where it
            is: `path/to/file.py:function`.
        example: Inputs for the graph where no data is given: a tensor, a sequence of positional
            arguments, or a mapping of keyword arguments. Costs need it.
        calibration: Rows that fix scales and show which layer matters: so many of `train` (or else of
            `val`); a pair of inputs and targets; or a list of batches as the model takes them.
        loss: `loss(output, target)`, the mean over a batch, for what is no classifier; it is given the
            batch in place of a target where calibration is a list of batches. Or where it is:
            `path/to/file.py:function`.
        runners: Runner to settings, in place of the default ones; a runner may be
            `path/to/file.py:function`, called as `function(model, **settings)`, or with the splits as
            its second argument where it takes two.
        pipeline: The steps of a trial that trains, and their settings, as in `[search.pipeline]`:
            `{"steps": ["train", "quantize", "finetune", "evaluate"], "finetune": {"max_epochs": 2}}`.
        strategy: Its name, or a table with its name and settings; a sampler's name (`tpe`) will do.
            Unset: every configuration where there are at most 500; otherwise 100 trials, `guided` where a
            cost is known without running the model, TPE elsewhere.
        n_trials: Trials at most, those included that a constraint rejects before the model runs.
        timeout: Seconds after which no further trial starts.
        seed: Of everything random.
        best: The question whose answer is kept in `best/`; also `knee`.
        workers: Processes that evaluate, one torch thread each.
        engine: `serial` or `processes`; unset: processes where there are several workers or a
            timeout per trial.
        trial_timeout: Seconds a trial may take; a longer one fails.
        max_failures: Trials that may fail; one more ends the search.
        eval_mode: False measures in training mode; running statistics are put back afterwards.
        warm_start: Run folder whose trials of this space, on this model and data, are taken over.
        out: Run folder; unset: the study stays in memory and nothing is written.
        resume: Go on with the study in `out`.
        extend: With `resume`, go on in a changed space with the trials that are still valid.
        on_trial: Called after every trial.

    Returns:
        The study: `front()`, `best(question)`, `trials`, `baseline`.

    Raises:
        BadInput: Before any work, for whatever does not fit.
        StudyError: The study in `out` belongs to another search.
    """
    document = Document()
    execution = Execution(workers, engine, timeout, trial_timeout, max_failures)
    traded = None
    if forgiving is not None:
        traded = validate(ForgivingSettings, forgiving, document, "forgiving").traded
    wanted = Wanted.of(maximize, minimize, subject_to, traded)
    if not isinstance(space, Space):
        raise BadInput("not a search space", key="space", found=space, allowed="paretobit.Quantize(...)")
    own = any(map(is_reference, runners or ()))
    if val is None and evaluate is None and not own:
        raise BadInput("nothing to measure with: give val=(x, y) or evaluate=function", key="val")
    splits = splits_from({"train": train, "val": val, "test": test}, model)
    with seeded(seed):  # a forward pass may draw
        evidence = evidence_for(model, splits, example, calibration, loss)
        made = make_runners(runners, evidence, evaluate, wanted.directions, document)
    steps = steps_of(pipeline, space, made, document)
    bound = space.bind(evidence.graph, evidence.calibration)
    training, made = make_pipeline(steps, space, bound, evidence, made, wanted, has_weights=True)
    check_before_work(wanted, made, best)
    default = "optuna" if training else default_strategy(bound, wanted, made)
    name, settings, number = choose_strategy(strategy, n_trials, bound.tree, wanted, document, default=default)
    check_strategy(name, training)
    folder = None if out is None else RunFolder.choose(out, "search", resume=resume)
    begun = folder is not None and folder.begun
    assembled = Search(
        model,
        splits,
        evidence,
        bound,
        made,
        wanted,
        name,
        settings,
        number,
        seed,
        execution,
        eval_mode,
        best,
        space.name,
        None if begun or warm_start is None else Study.open(warm_start),
        {"source": None},
        pipeline=training,
    )
    assembled.check_given(trained=True)
    if folder is None:
        return execute(assembled, None, on_trial)
    described = {"name": space.name, **space.to_settings()}
    config = {"seed": seed, "search": {"space": described, "n_trials": number}}
    if evaluate is not None or own:
        assembled.check_baseline()
    folder.create()
    with folder.locked():
        return execute(assembled, folder, on_trial, lambda: folder.write_config(config), extend)
