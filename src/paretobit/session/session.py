"""One search, assembled: from the bench to the study, each part built from the ones before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from paretobit.errors import BadInput, ParetoBitError
from paretobit.runtime import one_thread, seeded
from paretobit.session.delivery import Delivery
from paretobit.session.engines import Execution
from paretobit.session.interrupts import Interrupts
from paretobit.session.loop import Progress, SearchLoop
from paretobit.session.provenance import SPACE, check_comparable, check_or_begin
from paretobit.spaces import BoundSpace
from paretobit.strategies import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.strategies.problem import Problem
from paretobit.studies.models import BASELINE
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence, fingerprint
from paretobit.trials.halving import Rungs
from paretobit.trials.outcome import Outcome
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.runners import Runner
from paretobit.wanted.wanted import Wanted

OnTrial = Callable[[Progress], None]
_SCORES, _REPEATED = "scores", "repeated"
_FEW_TRIALS = 4  # of which one more would be felt


@dataclass(frozen=True)
class Session:
    """A search, assembled and not yet run.

    Attributes:
        model: The caller's model; never changed.
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
        page: What a saved model says of itself besides its formats: `source`, `data`.
        pipeline: The steps of a trial, where trials train.
    """

    model: nn.Module
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
    page: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline | None = None

    @property
    def splits(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The data."""
        return self.evidence.splits

    @property
    def make_bench(self) -> Callable[[], Bench]:
        """What makes a bench, here or in another process: no more of the search than that takes."""
        return partial(Bench, self.space, self.runners, self.seed, self.eval_mode, self.pipeline)

    @property
    def delivery(self) -> Delivery:
        """The models of its configurations."""
        return Delivery(self.model, self.space, self.evidence.graph, self.page, self.pipeline is not None)

    def problem(self, bench: Bench, baseline: Mapping[str, float], study: Study | None = None) -> Problem:
        """What strategies are given.

        Args:
            bench: Knows the metrics that need no model.
            baseline: Metrics of the unmodified model.
            study: Keeps the score tables, so that they are computed once and are the same after a resume.
        """
        known = {} if study is None else study.facts.get(_SCORES, {})

        def keep(tables: Mapping[str, Any]) -> None:
            if study is not None and "created" in study.facts:
                study.record(**{_SCORES: tables})

        insight = ModelInsight(self.space, self.evidence, bench.cheap_metrics, self.seed, known, keep)
        problem = Problem.build(self.space.tree, self.wanted, self.runners, baseline, insight)
        if self.best is not None:
            problem.question(self.best)
        return problem

    def begin(self, study: Study, *, extend: bool = False) -> Begun:
        """Measure the baseline and make the study this search's; trials in it are replayed by `Begun.run`.

        Seeds the global generators: whoever calls it puts their states back.

        Args:
            study: New, or to be resumed.
            extend: Begin a study of another space anew with its trials that are still valid.

        Raises:
            StudyError: The study belongs to another search.
            BadInput: Trials that are to be taken over do not compare; nothing was written.
        """
        if extend and self.pipeline is not None:
            what = "trials that train cannot be taken into another space: their weights stay where they are"
            raise BadInput(what, key="extend")
        bench = self.make_bench()
        if study.baseline:
            baseline = Outcome("complete", study.baseline)
            bench.recall()
        else:
            baseline = bench.baseline()
        problem = self.problem(bench, baseline.metrics, study)
        strategy = STRATEGIES[self.strategy](problem, self.seed, self.strategy_settings)
        check_or_begin(study, problem, self.identity(problem), self.best, self.given, extend)
        self.delivery.attach(study)
        if baseline.saved is not None:
            study.models.put(BASELINE, self.delivery.described(baseline.saved, None))
        if self.pipeline is not None:
            study.keep_models_of_the_front()  # a kill may have left others behind
        return Begun(self, bench, problem, strategy, study)

    def check_baseline(self) -> None:
        """Measure the unmodified model once, so that a measurement that cannot work is refused early.

        Raises:
            BadInput: It raised, returned nonsense, or lacks a metric that is asked for.
        """
        with one_thread(), seeded(self.seed):
            bench = self.make_bench()
            if self.pipeline is not None:  # it is trained once the search begins
                bench.recall()
            else:
                self.problem(bench, bench.baseline().metrics)

    def identity(self, problem: Problem) -> dict[str, Any]:
        """What makes this search this one and no other: all that a resumed study must share."""
        return {
            SPACE: {"name": self.space_name, "tree": self.space.tree.fingerprint, **self.space.describe()},
            "strategy": {"name": self.strategy, **self.strategy_settings.model_dump()},
            "seed": self.seed,
            "objectives": [objective.to_json() for objective in problem.objectives],
            "constraints": [str(constraint) for constraint in problem.constraints],
            **self._measured,
        }

    def check_given(self, *, trained: bool) -> None:
        """Refuse trials to be taken over that do not compare; the model counts once it is trained."""
        if self.given is None:
            return
        if self.pipeline is not None:
            problem = "trials that train cannot be taken over: their weights stay where they are"
            raise BadInput(problem, key="warm_start", found=str(self.given.path))
        check_comparable(self.given, self._measured, model=trained)

    @property
    def _measured(self) -> dict[str, Any]:
        """What trials must share to compare."""
        calibration = self.evidence.calibration
        return {
            "fingerprints": fingerprint(self.model, self.splits),
            "runners": [runner.identity for runner in self.runners],
            "eval_mode": self.eval_mode,
            "calibration": calibration and calibration.fingerprint,
            "pipeline": self.pipeline and self.pipeline.settings.model_dump(mode="json"),
        }

    def winner(self, study: Study) -> Trial | None:
        """The trial to keep; None where no trial satisfies the question."""
        try:
            return study.best(self.best)
        except BadInput:
            return None


@dataclass(frozen=True)
class Begun:
    """A search whose study holds what it is, ready to run.

    Attributes:
        session: What was assembled.
        bench: For trials in this process.
        problem: What the strategy was given.
        strategy: Fresh.
        study: Where trials go.
    """

    session: Session
    bench: Bench
    problem: Problem
    strategy: Strategy
    study: Study

    def run(self, on_trial: OnTrial | None = None) -> None:
        """Search. One interrupt finishes the running trials, a second one stops at once.

        Args:
            on_trial: Called after every trial.

        Raises:
            KeyboardInterrupt: The search was interrupted; what was finished is in the study.
        """
        session, execution, space = self.session, self.session.execution, self.session.space
        stop = session.pipeline and session.pipeline.settings.stop
        engine = execution.engine(self.bench, session.make_bench, self.problem.judge)
        loop = SearchLoop(
            self.problem,
            self.strategy,
            self.study,
            engine,
            self.bench.seed_of,
            on_trial,
            execution.max_failures,
            Rungs(stop) if stop else None,
            space.network_of if space.has_equals else None,
        )
        start, first = time.perf_counter(), len(self.study)
        try:
            with Interrupts() as interrupts:
                loop.run(session.n_trials, execution.timeout, interrupts.wanted)
                late = execution.timeout is not None and time.perf_counter() - start >= execution.timeout
                if not late and not interrupts.wanted():
                    self._repeat(first)
        finally:
            engine.close()
            self._record_what_was_said()

    def _repeat(self, first: int) -> None:
        """Measure a trial of this run once more, and note whether something else comes out.

        Whatever a model holds is put back after every trial; what it keeps elsewhere (globals, files,
        draws that are not torch's) is found only so.

        Args:
            first: Number of the first trial of this run.
        """
        session, known = self.session, self.study.facts.get(_REPEATED)
        expensive = [runner for runner in session.runners if not runner.cheap]
        if session.pipeline is not None or known is not None or len(self.study) < _FEW_TRIALS or not expensive:
            return
        trial = next((t for t in self.study.trials[first:] if t.state == "complete"), None)
        before, again = self.study.baseline if trial is None else trial.metrics, Outcome("failed", {})
        with suppress(ParetoBitError):
            again = self.bench.baseline() if trial is None else self.bench.evaluate(trial.config, self.problem.judge)
        names = [metric.name for runner in expensive for metric in runner.metrics if metric.repeats]
        differs = {name: [before[name], again.metrics.get(name, "a failure")] for name in names if name in before}
        differs = {name: pair for name, pair in differs.items() if pair[0] != pair[1]}
        self.study.record(**{_REPEATED: {"trial": trial and trial.number, "differs": differs}})

    def _notes(self) -> list[str]:
        """What the strategy noted, and whether a trial could be repeated."""
        repeated = self.study.facts.get(_REPEATED, {"differs": {}})
        notes = list(self.strategy.notes)
        if repeated["differs"]:
            what = "the baseline" if repeated["trial"] is None else f"trial {repeated['trial']}"
            said = "; ".join(f"{name} is {now}, and was {was}" for name, (was, now) in repeated["differs"].items())
            why = "results depend on what ran before, or on time or chance that no seed fixes"
            notes.append(f"{what} gives something else when it is repeated after the search: {said}: {why}")
        return notes

    def _record_what_was_said(self) -> None:
        """What the strategy predicted, by trial, and what it noted."""
        predicted, notes = self.strategy.predicted, self._notes()
        values = {str(t.number): predicted[t.config] for t in self.study if t.config in predicted}
        if values or notes:
            self.study.record(predicted={"metric": "loss", "values": values}, notes=notes)
