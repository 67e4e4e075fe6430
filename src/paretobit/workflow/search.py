"""The main job: assemble a search, run it, keep the front and the winner."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from paretobit.errors import BadInput
from paretobit.models import SavedModel, resized
from paretobit.report import draw_front, front_rows, to_csv, trial_rows
from paretobit.runtime import one_thread, seeded
from paretobit.session.engines.execution import Execution
from paretobit.session.interrupts import Interrupts
from paretobit.session.loop import Progress, SearchLoop
from paretobit.session.provenance import SPACE, check_comparable, check_or_begin
from paretobit.spaces import BoundSpace
from paretobit.spaces.architecture import BoundArchitecture
from paretobit.spaces.knobs import Config
from paretobit.storage import write_text_atomic
from paretobit.strategies import STRATEGIES, Strategy, StrategySettings
from paretobit.strategies.insight.model_insight import ModelInsight
from paretobit.strategies.problem import Problem
from paretobit.studies.models import BASELINE
from paretobit.studies.study import Study, describe_objective
from paretobit.studies.trial import Trial
from paretobit.trials.bench import Workbench
from paretobit.trials.evidence import Evidence, fingerprint
from paretobit.trials.pipeline.bench import TrainingBench
from paretobit.trials.pipeline.halving import Rungs
from paretobit.trials.pipeline.pipeline import Pipeline
from paretobit.trials.runners import Runner
from paretobit.wanted.wanted import UNJUDGED, Judgement, Wanted
from paretobit.workflow.judge import judge
from paretobit.workflow.run_folder import RunFolder

OnTrial = Callable[[Progress], None]
_SCORES = "scores"


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
        on_judged: Called with the points judged on the test split and their number.
        pipeline: The steps of a trial, where trials train.
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
    on_judged: Callable[[int, int], None] | None = None
    pipeline: Pipeline | None = None

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
        if extend and self.pipeline is not None:
            what = "trials that train cannot be taken into another space: their weights stay where they are"
            raise BadInput(what, key="extend")

        def judge(metrics: Mapping[str, float]) -> Judgement:
            return problem.judge(metrics) if problem else UNJUDGED

        workbench = self.workbench(judge)
        baseline = dict(study.baseline) or workbench.baseline()
        if study.baseline:
            workbench.recall()
        problem = self.problem(baseline, workbench, study)
        if self.best is not None:
            problem.question(self.best)
        strategy = STRATEGIES[self.strategy](problem, self.seed, self.strategy_settings)
        engine = self.execution.engine(workbench, self._recipe(problem.judge))
        check_or_begin(study, problem, self.identity(problem), self.best, self.given, extend)
        self._begin_training(study, workbench)
        on_begin()
        study.attach(partial(self.model_of, study), lambda saved, trial: self._with_source(saved, trial.config))
        loop = SearchLoop(
            problem,
            strategy,
            study,
            engine,
            workbench.seed_of,
            on_trial,
            self.execution.max_failures,
            self._rungs(),
            self.space.network_of if self.space.has_equals else None,
        )
        try:
            with Interrupts() as interrupts:
                loop.run(self.n_trials, self.execution.timeout, interrupts.wanted)
        finally:
            engine.close()
            self._record_what_was_said(strategy, study)

    def workbench(self, judge: Callable[[Mapping[str, float]], Judgement] | None = None) -> Workbench:
        """What evaluates configurations.

        Args:
            judge: What metrics mean; constraints that are broken end a trial. None: nothing is wanted.
        """
        return self._recipe(judge or _nothing_wanted)()

    def _recipe(self, judge: Callable[[Mapping[str, float]], Judgement]) -> Callable[[], Workbench]:
        """What makes a workbench, here or in another process: no more of the search than that takes."""
        if self.pipeline is not None:
            return partial(TrainingBench, self.pipeline, self.runners, judge, self.seed)
        rejects = partial(_violation, judge)
        return partial(Workbench, self.space, self.runners, rejects, self.seed, self.eval_mode)

    def _begin_training(self, study: Study, workbench: Workbench) -> None:
        """Keep the trained baseline, and forget models whose trial a kill took."""
        if isinstance(workbench, TrainingBench):
            if workbench.trained_baseline is not None:
                study.models.put(BASELINE, self._with_source(workbench.trained_baseline, None))
            study.keep_models_of_the_front()

    def _rungs(self) -> Rungs | None:
        stop = self.pipeline and self.pipeline.settings.stop
        return Rungs(stop) if stop else None

    def _record_what_was_said(self, strategy: Strategy, study: Study) -> None:
        """What the strategy predicted, by trial, and what it noted."""
        if "created" not in study.facts:
            return
        values = {str(t.number): strategy.predicted[t.config] for t in study if t.config in strategy.predicted}
        if values or strategy.notes:
            study.record(predicted={"metric": "loss", "values": values}, notes=list(strategy.notes))

    def problem(
        self, baseline: Mapping[str, float], workbench: Workbench, study: Study | None = None
    ) -> Problem:
        """What strategies are given.

        Args:
            baseline: Metrics of the unmodified model.
            workbench: Knows the metrics that need no model.
            study: Keeps the score tables, so that they are computed once and are the same after a resume.
        """
        known = {} if study is None else study.facts.get(_SCORES, {})

        def keep(tables: Mapping[str, Any]) -> None:
            if study is not None and "created" in study.facts:
                study.record(**{_SCORES: tables})

        insight = ModelInsight(self.space, self.evidence, workbench.cheap_metrics, self.seed, known, keep)
        return Problem.build(self.space.tree, self.wanted, self.runners, baseline, insight)

    def check_baseline(self) -> None:
        """Measure the unmodified model once, so that a measurement that cannot work is refused early.

        Raises:
            BadInput: It raised, returned nonsense, or lacks a metric that is asked for.
        """
        with one_thread(), seeded(self.seed):
            workbench = self.workbench()
            if self.pipeline is not None:  # it is trained once the search begins
                workbench.recall()
                return
            problem = self.problem(workbench.baseline(), workbench)
        if self.best is not None:
            problem.question(self.best)

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
        if self.given is not None and self.pipeline is not None:
            problem = "trials that train cannot be taken over: their weights stay where they are"
            raise BadInput(problem, key="warm_start", found=str(self.given.path))
        if self.given is not None:
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

    def build(self, config: Config | None) -> nn.Module:
        """A copy of the model with a configuration applied; None leaves it in full precision."""
        if config is None:
            return copy.deepcopy(self.model).eval()
        prepared = self.space.prepare()
        model = self.space.apply(prepared, config)
        return model if model is prepared else copy.deepcopy(model)

    def model_of(self, study: Study, trial: Trial) -> nn.Module:
        """The model of a trial: with the weights that it trained, where trials train.

        Raises:
            ParetoBitError: Those weights were not kept.
        """
        if self.pipeline is None:
            return self.build(trial.config)
        number = trial.number if trial.duplicate_of is None else trial.duplicate_of
        model = copy.deepcopy(self.space.graph(trial.config).model)
        return study.models.get(number).put_into(model, f"trial {number}")

    def baseline_model(self, study: Study) -> nn.Module:
        """The unmodified model: trained as the trials were, where trials train."""
        model = self.build(None)
        return model if self.pipeline is None else study.models.get(BASELINE).put_into(model, BASELINE)

    def saved(self, study: Study, trial: Trial) -> SavedModel:
        """The model of a trial with all that `load` needs to build it."""
        return self._with_source(SavedModel.of(self.model_of(study, trial)), trial.config)

    def _with_source(self, saved: SavedModel, config: Config | None) -> SavedModel:
        """A saved model that says what it is a model of."""
        known: dict[str, Any] = dict(self.saved_with)
        if config is not None:
            known |= self._shape_of(config, known.get("source"))
            built = self.space.parts(config).get(BoundArchitecture.name)
            graph = self.evidence.graph if built is None else built.graph(config)
            shape = resized(graph, self.space.widths(config))
            if shape is not None:
                before = known.get("resized", {"widths": {}})
                known["resized"] = {**shape, "widths": {**before["widths"], **shape["widths"]}}
        return replace(saved, page={**saved.page, **known})

    def _shape_of(self, config: Config, source: Mapping[str, Any] | None) -> dict[str, Any]:
        """What of the source differs where the architecture varies."""
        built = self.space.parts(config).get(BoundArchitecture.name)
        if not isinstance(built, BoundArchitecture):
            return {}
        given = source and {**source, "config": {**source.get("config", {}), **built.values(config)}}
        return {"source": given, "identity": list(built.replaced(config))}

    def winner(self, study: Study) -> Trial | None:
        """The trial to keep; None where no trial satisfies the question."""
        try:
            return study.best(self.best)
        except BadInput:
            return None


def _nothing_wanted(metrics: Mapping[str, float]) -> Judgement:
    return UNJUDGED


def _violation(judge: Callable[[Mapping[str, float]], Judgement], metrics: Mapping[str, float]) -> float:
    return judge(metrics).violation


def write_results(search: Search, study: Study, folder: RunFolder) -> None:
    """Write tables, picture and winner of a study into its run folder."""
    write_text_atomic(folder.trials, to_csv(trial_rows(study.trials)))
    write_text_atomic(folder.front, to_csv(front_rows(study)))
    draw_front(study, folder.picture)
    winner = search.winner(study)
    if winner is not None:
        saved = search.saved(study, winner)
        known = {"trial": winner.number, "config": dict(winner.config), "metrics": dict(winner.metrics)}
        replace(saved, page={**saved.page, **known}).write(folder.best)


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
            judge(assembled, study)
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
