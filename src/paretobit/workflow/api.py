"""`paretobit.search`: the main job from Python."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretobit.data.calibration import Loss
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.graph import Example
from paretobit.plugins import load as load_plugins
from paretobit.session.session import OnTrial
from paretobit.spaces import Space
from paretobit.studies.study import Study
from paretobit.workflow.assemble import Pair, Rows
from paretobit.workflow.run import run
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble
from paretobit.workflow.subject import Given


@torch.inference_mode(False)  # wherever it is called from: it scores by gradients, and trains
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
    calibration: Rows | None = None,
    loss: Loss | str | None = None,
    runners: Mapping[str, Mapping[str, Any]] | None = None,
    pipeline: Mapping[str, Any] | None = None,
    strategy: str | Mapping[str, Any] | None = None,
    n_trials: int | None = None,
    timeout: float | None = None,
    seed: int = 0,
    best: str | None = None,
    workers: int | None = None,
    engine: str | None = None,
    trial_timeout: float | None = None,
    max_failures: int | None = None,
    eval_mode: bool | None = None,
    warm_start: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    extend: bool = False,
    on_trial: OnTrial | None = None,
    plugins: Sequence[str] = (),
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
            `val`), 512 unless said; a pair of inputs and targets; or a list of batches as the model takes them.
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
        workers: Processes that evaluate, one torch thread each; one unless said.
        engine: `serial` or `processes`; unset: processes where there are several workers or a
            timeout per trial.
        trial_timeout: Seconds a trial may take; a longer one fails.
        max_failures: Trials that may fail; one more ends the search.
        eval_mode: False measures in training mode, statistics are put back; unset: it is not.
        warm_start: Run folder whose trials of this space, on this model and data, are taken over.
        out: Run folder; unset: the study stays in memory and nothing is written.
        resume: Go on with the study in `out`.
        extend: With `resume`, go on in a changed space with the trials that are still valid.
        on_trial: Called after every trial.
        plugins: Files and modules that register formats, runners, strategies …; imported first.

    Returns:
        The study: `front()`, `best(question)`, `trials`, `baseline`; its `notes` say what stays in float and
        what the costs lack.

    Raises:
        BadInput: Before any work, for whatever does not fit.
        StudyError: The study in `out` belongs to another search.
    """
    rows = calibration if type(calibration) is not int else None
    given = Given(
        model,
        space,
        {"train": train, "val": val, "test": test},
        example=example,
        calibration=rows,
        evaluate=None if isinstance(evaluate, str) else evaluate,
        loss=None if isinstance(loss, str) else loss,
    )
    asked = {
        "space": {"name": space.name, **space.to_settings()} if isinstance(space, Space) else {},
        "maximize": maximize,
        "minimize": minimize,
        "subject_to": subject_to,
        "forgiving": forgiving,
        "runners": runners,
        "pipeline": pipeline,
        "strategy": strategy,
        "n_trials": n_trials,
        "timeout": timeout,
        "best": best,
        "workers": workers,
        "engine": engine,
        "trial_timeout": trial_timeout,
        "max_failures": max_failures,
        "eval_mode": eval_mode,
        "warm_start": None if warm_start is None else str(warm_start),
        "calibration": calibration if rows is None else None,
        "evaluate": evaluate if isinstance(evaluate, str) else None,
        "loss": loss if isinstance(loss, str) else None,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    recorded = given.recorded.model_dump(exclude_defaults=True)
    document = Document({"seed": seed, "search": asked, "given": recorded})
    try:
        if names := load_plugins(plugins):
            document.data["plugins"] = names
        settings = Settings.from_document(document)
        folder = None if out is None else RunFolder.choose(out, "search", resume=resume)
        begun = folder is not None and folder.begun
        assembled = assemble(settings, document, given, begun=begun)
        for said in assembled.session.coverage.warnings:
            warnings.warn(said, stacklevel=3)  # the caller's line: the decorator has a frame of its own
        return run(assembled, folder, on_trial=on_trial, extend=extend)
    except BadInput as error:  # names arguments, not the keys of a file that say the same
        error.key = error.key and error.key.removeprefix("search.")
        raise
