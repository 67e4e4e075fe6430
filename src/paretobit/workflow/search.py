"""The main job: assemble a search, run it, keep the front and the winner."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.graph import Example
from paretobit.models import save
from paretobit.passes.transform import apply_assignment
from paretobit.report import draw_front, front_rows, to_csv, trial_rows
from paretobit.runtime import derive_seed, one_thread, seed_everything, seeded
from paretobit.search import (
    STRATEGIES,
    BoundSpace,
    Candidate,
    Config,
    Evidence,
    Problem,
    Progress,
    Runner,
    SearchLoop,
    SerialEngine,
    Space,
    Study,
    Trial,
    Wanted,
    Workbench,
)
from paretobit.search.engine import Engine
from paretobit.search.interrupts import Interrupts
from paretobit.search.problem import check_before_work
from paretobit.search.processes import ProcessEngine
from paretobit.search.runners import BasicEvaluation
from paretobit.search.strategies import StrategySettings
from paretobit.search.study import describe_objective
from paretobit.storage import write_text_atomic
from paretobit.workflow.assemble import (
    Pair,
    choose_strategy,
    evidence_for,
    fingerprint,
    make_runners,
    splits_from,
)
from paretobit.workflow.provenance import SPACE, check_comparable, check_or_begin
from paretobit.workflow.run_folder import RunFolder

OnTrial = Callable[[Progress], None]


@dataclass(frozen=True)
class Execution:
    """Where trials run, and when to stop.

    Attributes:
        workers: How many processes evaluate.
        kind: `serial` or `processes`; unset: processes where there are several workers or a timeout
            per trial.
        timeout: Seconds after which no further trial starts.
        trial_timeout: Seconds a trial may take.
        max_failures: How many trials may fail.
    """

    workers: int = 1
    kind: str | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    max_failures: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadInput("a search needs a worker", key="workers", found=self.workers)
        if self.kind not in (None, "serial", "processes"):
            raise BadInput("unknown engine", key="engine", found=self.kind, allowed=["serial", "processes"])
        if self.kind == "serial" and (self.workers > 1 or self.trial_timeout is not None):
            needs = "several workers" if self.workers > 1 else "trial_timeout"
            raise BadInput(f"{needs} need other processes", key="engine", found="serial", allowed=["processes"])

    def engine(self, search: Search, problem: Problem, workbench: Workbench) -> Engine:
        """The engine of a search."""
        if self.kind != "processes" and self.workers == 1 and self.trial_timeout is None:
            return SerialEngine(workbench)
        make = partial(
            Workbench, search.space, search.runners, problem.violation, search.seed, search.eval_mode
        )
        return ProcessEngine(make, self.workers, self.trial_timeout)


@dataclass
class Search:
    """A search, assembled and not yet run.

    Attributes:
        model: The caller's model; never changed.
        splits: The data.
        evidence: Graph and data as runners see them.
        space: Bound to the model.
        runners: What measures.
        wanted: Objectives and constraints in the user's names.
        strategy: Registered name.
        strategy_settings: Checked.
        n_trials: Trials the study shall hold.
        seed: The study's.
        execution: Where trials run, and when to stop.
        eval_mode: False measures in training mode.
        best: The question whose answer is kept; unset: the best first objective.
        space_name: Registered name of the space.
        given: Trials of another study to take over.
        saved_with: What `best/model.json` keeps besides the formats: `source`, `data`.
    """

    model: nn.Module
    splits: Mapping[str, tuple[Tensor, Tensor]]
    evidence: Evidence
    space: BoundSpace
    runners: tuple[Runner, ...]
    wanted: Wanted
    strategy: str
    strategy_settings: StrategySettings
    n_trials: int
    seed: int = 0
    execution: Execution = field(default_factory=lambda: Execution())
    eval_mode: bool = True
    best: str | None = None
    space_name: str = "quantize"
    given: Study | None = None
    saved_with: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        study: Study,
        on_trial: OnTrial | None = None,
        on_begin: Callable[[], None] = lambda: None,
        extend: bool = False,
    ) -> None:
        """Measure the baseline, then search; trials already in the study are replayed.

        Seeds the global generators: `execute` puts their states back. One interrupt finishes the
        running trials, a second one stops at once.

        Args:
            study: New, or to be resumed.
            on_trial: Called after every trial.
            on_begin: Called once it is known that the study is this search's.
            extend: Begin a study of another space anew with its trials that are still valid.

        Raises:
            StudyError: The study belongs to another search.
            BadInput: Trials that are to be taken over do not compare; nothing was written.
            KeyboardInterrupt: The search was interrupted; what was finished is in the study.
        """
        problem: Problem | None = None

        def violation(metrics: Mapping[str, float]) -> float:
            return problem.violation(metrics) if problem else 0.0

        workbench = Workbench(self.space, self.runners, violation, self.seed, self.eval_mode)
        baseline = dict(study.baseline) or workbench.baseline()
        if study.baseline:  # what a user's function returns is known once it ran
            workbench.baseline()
        problem = Problem.build(self.space, self.wanted, self.runners, baseline)
        if self.best is not None:
            problem.question(self.best)
        strategy = STRATEGIES[self.strategy](problem, self.seed, self.strategy_settings)
        engine = self.execution.engine(self, problem, workbench)
        check_or_begin(study, problem, self.identity(problem), self.best, self.given, extend)
        on_begin()
        study.attach(self.build)
        loop = SearchLoop(
            problem, strategy, study, engine, workbench.seed_of, on_trial, self.execution.max_failures
        )
        try:
            with Interrupts() as interrupts:
                loop.run(self.n_trials, self.execution.timeout, interrupts.wanted)
        finally:
            engine.close()

    @property
    def described_space(self) -> dict[str, Any]:
        """The space as the study records it."""
        return {"name": self.space_name, "tree": self.space.tree.fingerprint, **self.space.describe()}

    def identity(self, problem: Problem) -> dict[str, Any]:
        """What makes this search this one and no other: all that a resumed study must share."""
        return {
            SPACE: self.described_space,
            "strategy": {"name": self.strategy, **self.strategy_settings.model_dump()},
            "seed": self.seed,
            "objectives": [describe_objective(objective) for objective in problem.objectives],
            "constraints": [str(constraint) for constraint in problem.constraints],
            **self._measured,
        }

    def check_given(self, *, trained: bool) -> None:
        """Refuse trials to be taken over that do not compare; the model counts once it is trained."""
        if self.given is not None:
            check_comparable(self.given, self._measured, model=trained)

    @property
    def _measured(self) -> dict[str, Any]:
        """What trials must share to compare."""
        return {
            "fingerprints": fingerprint(self.model, self.splits),
            "runners": [[type(r).__name__, r.settings.model_dump()] for r in self.runners],
            "eval_mode": self.eval_mode,
        }

    def judge(self, study: Study) -> None:
        """Measure the baseline and the front on the untouched test split, where there is one."""
        evaluation = next((r for r in self.runners if isinstance(r, BasicEvaluation)), None)
        if evaluation is None or "test" not in self.splits:
            return
        settings = evaluation.settings.model_copy(update={"split": "test", "num_samples": None})
        runner = BasicEvaluation(self.evidence, settings)
        known = dict(study.facts.get("test", {}))
        configs: dict[str, Config | None] = {str(t.number): t.config for t in study.front()}
        for name, config in {"baseline": None, **configs}.items():
            if name not in known:
                seed_everything(derive_seed(self.seed, "test", name))
                model = self.build(config)
                known[name] = runner.measure(Candidate({}, model))
        study.record(test=known)

    def build(self, config: Config | None) -> nn.Module:
        """A copy of the model with a configuration applied; None leaves it in full precision."""
        model = copy.deepcopy(self.model).eval()
        if config is not None:
            apply_assignment(model, self.space.formats(config))
        return model

    def winner(self, study: Study) -> Trial | None:
        """The trial to keep; None where no trial satisfies the question."""
        try:
            return study.best(self.best)
        except BadInput:
            return None


def write_results(search: Search, study: Study, folder: RunFolder) -> None:
    """Write tables, picture and winner of a study into its run folder."""
    write_text_atomic(folder.trials, to_csv(trial_rows(study.trials)))
    write_text_atomic(folder.front, to_csv(front_rows(study)))
    draw_front(study, folder.picture)
    winner = search.winner(study)
    if winner is not None:
        known: dict[str, Any] = {
            "trial": winner.number,
            "config": dict(winner.config),
            "metrics": dict(winner.metrics),
        }
        save(folder.best, search.build(winner.config), **search.saved_with, **known)


def search(
    model: nn.Module,
    *,
    space: Space,
    maximize: str | Sequence[str] = (),
    minimize: str | Sequence[str] = (),
    subject_to: str | Sequence[str] = (),
    train: Pair | None = None,
    val: Pair | None = None,
    test: Pair | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    example: Example | None = None,
    runners: Mapping[str, Mapping[str, Any]] | None = None,
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
        maximize: Metrics to maximise.
        minimize: Metrics to minimise.
        subject_to: Constraints: `accuracy >= baseline - 0.01`.
        train: Inputs and labels the model was trained on, tensors or arrays, rows first.
        val: Inputs and labels that choose.
        test: Inputs and labels that only judge the front.
        evaluate: Measures a model in place of `val`: regression, detection, language models.
        example: Inputs for the graph where no data is given: a tensor, a sequence of positional
            arguments, or a mapping of keyword arguments. Costs need it.
        runners: Runner to settings, in place of the default ones.
        strategy: Its name, or a table with its name and settings; a sampler's name (`tpe`) will do.
            Unset: every configuration where there are at most 500, otherwise 100 trials of TPE.
        n_trials: Trials at most.
        timeout: Seconds after which no further trial starts.
        seed: Of everything random.
        best: The question whose answer is kept in `best/`.
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
    wanted = Wanted.of(maximize, minimize, subject_to)
    if val is None and evaluate is None:
        raise BadInput("nothing to measure with: give val=(x, y) or evaluate=function", key="val")
    splits = splits_from({"train": train, "val": val, "test": test})
    with seeded(seed):  # a forward pass may draw
        evidence = evidence_for(model, splits, example)
        made = make_runners(runners, evidence, evaluate, wanted.directions, document)
    check_before_work(wanted, made)
    bound = space.bind(evidence.graph)
    name, settings, trials = choose_strategy(strategy, n_trials, bound.tree, wanted, document)
    folder = None if out is None else RunFolder.choose(out, "search", resume=resume)
    begun = folder is not None and folder.begun
    assembled = Search(
        copy.deepcopy(model),
        splits,
        evidence,
        bound,
        made,
        wanted,
        name,
        settings,
        trials,
        seed,
        execution,
        eval_mode,
        best,
        space.name,
        None if begun or warm_start is None else Study.open(warm_start),
        {"source": None},
    )
    assembled.check_given(trained=True)
    if folder is None:
        return execute(assembled, None, on_trial)
    described = {"name": space.name, **space.to_settings()}
    config = {"seed": seed, "search": {"space": described, "n_trials": trials}}
    folder.create()
    with folder.locked():
        return execute(assembled, folder, on_trial, lambda: folder.write_config(config), extend)


def execute(
    assembled: Search,
    folder: RunFolder | None,
    on_trial: OnTrial | None,
    on_begin: Callable[[], None] = lambda: None,
    extend: bool = False,
) -> Study:
    """Run a search; with a run folder, its study and results live there and an interrupt keeps them.

    The folder is the caller's to lock.
    """
    study = Study(folder.study if folder else None)
    try:
        with one_thread(), seeded(assembled.seed):
            assembled.run(study, on_trial, on_begin, extend)
            assembled.judge(study)
    except BaseException:
        if folder and "created" in study.facts:
            with suppress(Exception):  # the first error is the one to know of
                write_results(assembled, study, folder)
        study.close()
        raise
    if folder:
        study.close()
        write_results(assembled, study, folder)
    return study
