"""Strategies compared over many seeds: replayed on a table, or run live."""

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from paretobit.comparing.comparison import Comparison, entry_of
from paretobit.comparing.replay import Asked, Play
from paretobit.comparing.table import Table
from paretobit.comparing.yardstick import Yardstick
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.report.comparison import comparison_page, comparison_picture
from paretobit.report.figures import FORMATS, save
from paretobit.runtime import one_thread, seeded
from paretobit.session.session import Session
from paretobit.spaces.knobs import Config
from paretobit.storage import write_text_atomic
from paretobit.strategies.problem import Problem
from paretobit.training import Epoch
from paretobit.trials.outcome import Outcome
from paretobit.trials.runners import BasicEvaluation
from paretobit.wanted.objectives import Constraint, split_constraints
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.contestants import Asking, Contestant, line_up
from paretobit.workflow.run import train_first
from paretobit.workflow.run_folder import RunFolder
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

OnPlay = Callable[[str, int, int], None]
"""Called after every play: the strategy, plays done, plays in all."""
_TIMED = 3


def compare_on_table(
    table: Table,
    asking: Asking,
    *,
    name: str = "table",
    wanted: Wanted | None = None,
    on_play: OnPlay | None = None,
    known: MutableMapping[tuple[str, int], Play] | None = None,
) -> Comparison:
    """Replay strategies on a complete table; no model is needed.

    Args:
        table: Of the space.
        asking: Strategies, seeds, budget.
        wanted: Other objectives and constraints than the table's own.
        on_play: Called after every play.
        known: Plays by label and seed that were made before in the same way; new ones are added.

    Raises:
        BadInput: A strategy is unknown or cannot be used here, or a metric is not in the table.
    """
    problem = table.problem(wanted)
    contestants, left_out = line_up(asking.strategies, problem, table.about["evidence_absent"])
    outcomes = (table.outcome(table.tree.at(index), problem) for index in range(len(table)))
    losses = (problem.judge(o.metrics).losses for o in outcomes if o.state == "complete")
    samples = next((rows for split, rows in table.about["samples"].items() if split != "test"), None)
    stick = Yardstick(problem.objectives, (p for p in losses if p), problem.vocabulary.metrics, samples)
    jobs = [(contestant, seed) for contestant in contestants for seed in range(asking.seeds)]
    budget = min(asking.budget, table.tree.size)
    known = {} if known is None else known
    missing = [job for job in jobs if _key(job) not in known]
    if asking.workers == 1:
        new: Iterable[Play] = map(_Replay(table, wanted, budget), missing)
    else:
        new = _in_processes(table, wanted, budget, missing, asking.workers)
    for job, one in zip(missing, _told(new, missing, on_play), strict=True):
        known[_key(job)] = one
    plays = [known[_key(job)] for job in jobs]
    return _comparison(name, problem, stick, asking, budget, contestants, plays, left_out, exact=True)


def compare_live(
    settings: Settings,
    document: Document,
    folder: RunFolder,
    asking: Asking,
    *,
    name: str = "live",
    on_play: OnPlay | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Comparison:
    """Run strategies live; no configuration is measured twice, whoever asks for it.

    The best is then the best that any of them found.

    Args:
        settings: Of a search; its strategy and number of trials are set aside.
        document: Where they came from.
        folder: Where the float model is kept that is trained where there is no checkpoint.
        asking: Strategies, seeds, budget.
        on_play: Called after every play.
        on_epoch: Called after every epoch of training.
    """
    if asking.workers > 1:
        raise BadInput("a live comparison shares what it measures: it runs in one process", key="--workers")
    change = {"strategy": None, "n_trials": None, "warm_start": None}
    settings = settings.model_copy(update={"search": settings.search.model_copy(update=change)})
    assembled = assemble(settings, document, begun=True)
    session = assembled.session
    if assembled.trains_first:
        folder.create()
    train_first(assembled, folder, on_epoch)
    with one_thread(), seeded(session.seed):
        live = _Live(session)
        problem = live.problem
        contestants, left_out = line_up(asking.strategies, problem, "there were no calibration rows")
        jobs = [(contestant, seed) for contestant in contestants for seed in range(asking.seeds)]
        budget = min(asking.budget, session.space.tree.size)
        plays = list(_told((live.play(c, seed, budget) for c, seed in jobs), jobs, on_play))
    points = [point for one in plays for point in one.points if point is not None]
    stick = Yardstick(problem.objectives, points, problem.vocabulary.metrics, live.samples)
    exact = len(live.known) == session.space.tree.size
    found = _comparison(name, problem, stick, asking, budget, contestants, plays, left_out, exact=exact)
    return replace(found, notes=session.coverage.said)


def asked_of(
    path: Path,
    maximize: Sequence[str] | None = None,
    minimize: Sequence[str] | None = None,
    subject_to: Sequence[str] | None = None,
) -> tuple[Table, str, Wanted | None]:
    """A table, its name, and another question than its own where one is asked.

    Args:
        path: The table's file, or the folder that holds it.
        maximize: Objectives, in place of the table's where any is given.
        minimize: The same.
        subject_to: Constraints, in place of the table's.
    """
    table = Table.open(path)
    name = path.name if path.is_dir() else path.stem if path.stem != "table" else path.resolve().parent.name
    if not (maximize or minimize or subject_to):
        return table, name, None
    if not (maximize or minimize):
        parts = [part for text in subject_to or () for part in split_constraints(text)]
        return table, name, Wanted(table.wanted.objectives, tuple(map(Constraint.parse, parts)))
    return table, name, Wanted.of(maximize or (), minimize or (), subject_to or ())


def write_comparisons(comparisons: Sequence[Comparison], folder: Path, picture_format: str) -> list[Path]:
    """Write a page, a picture of every comparison, and all numbers; the files written, the page first."""
    if picture_format not in FORMATS:
        raise BadInput("no such kind of picture", key="--format", found=picture_format, allowed=FORMATS)
    page, numbers = folder / "comparison.md", folder / "comparison.json"
    pictures, parts = [], ["# Strategies compared\n"]
    for i, one in enumerate(comparisons, 1):
        pictures.append(folder / f"comparison-{i}-{one.name}.{picture_format}")
        save(comparison_picture(one), pictures[-1])
        parts.append(comparison_page(one, pictures[-1].name))
    write_text_atomic(page, "\n".join(parts))
    write_text_atomic(numbers, json.dumps([one.to_json() for one in comparisons]))
    return [page, numbers, *pictures]


class _Replay:
    """Plays one strategy with one seed on a table."""

    def __init__(self, table: Table, wanted: Wanted | None, budget: int) -> None:
        self._table, self._budget = table, budget
        self._problem = table.problem(wanted)
        evidence = table.about["evidence"] or {"seconds": {}}
        self._seconds: dict[Asked, float] = {
            (name, outer, None): spent for name, each in evidence["seconds"].items() for outer, spent in each.items()
        }

    def __call__(self, job: tuple[Contestant, int]) -> Play:
        contestant, seed = job
        return contestant.play(
            seed,
            self._problem,
            lambda config: self._table.outcome(config, self._problem),
            self._budget,
            evidence_seconds=self._seconds,
            evaluation_seconds=self._table.seconds,
        )


class _Live:
    """Measures configurations of a search, each once."""

    def __init__(self, session: Session) -> None:
        bench = session.make_bench()
        times = []
        for _ in range(_TIMED):
            start = time.perf_counter()
            baseline = bench.baseline().metrics
            times.append(time.perf_counter() - start)
        evaluation = next((r for r in session.runners if isinstance(r, BasicEvaluation)), None)
        self.problem = session.problem(bench, baseline)
        self.samples = None if evaluation is None else evaluation.samples
        self.known: dict[Config, Outcome] = {}
        self._bench, self._evaluation_seconds = bench, statistics.median(times)
        self._evidence_seconds: dict[Asked, float] = {}

    def play(self, contestant: Contestant, seed: int, budget: int) -> Play:
        """One strategy with one seed."""
        return contestant.play(
            seed,
            self.problem,
            self._answer,
            budget,
            evidence_seconds=self._evidence_seconds,
            evaluation_seconds=self._evaluation_seconds,
        )

    def _answer(self, config: Config) -> Outcome:
        if config not in self.known:
            self.known[config] = self._bench.evaluate(config, self.problem.judge)
        return self.known[config]


_replay: _Replay | None = None
"""Of a worker process."""


def _open_replay(table: Table, wanted: Wanted | None, budget: int) -> None:
    global _replay
    _replay = _Replay(table, wanted, budget)


def _play_one(job: tuple[Contestant, int]) -> Play:
    assert _replay is not None, "the process was started without its table"
    return _replay(job)


def _in_processes(
    table: Table, wanted: Wanted | None, budget: int, jobs: Sequence[tuple[Contestant, int]], workers: int
) -> Iterator[Play]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open_replay, (table, wanted, budget)) as pool:
        yield from pool.map(_play_one, jobs)


def _key(job: tuple[Contestant, int]) -> tuple[str, int]:
    return job[0].label, job[1]


def _told(plays: Iterable[Play], jobs: Sequence[tuple[Contestant, int]], on_play: OnPlay | None) -> Iterator[Play]:
    for done, (one, (contestant, _)) in enumerate(zip(plays, jobs, strict=True), 1):
        if on_play:
            on_play(contestant.label, done, len(jobs))
        yield one


def _comparison(
    name: str,
    problem: Problem,
    stick: Yardstick,
    asking: Asking,
    budget: int,
    contestants: Sequence[Contestant],
    plays: Sequence[Play],
    left_out: Mapping[str, str],
    *,
    exact: bool,
) -> Comparison:
    """What plays, seed by seed of each contestant in turn, come to."""
    each, charged = asking.seeds, asking.charge_evidence
    entries = tuple(
        entry_of(contestant.label, plays[i * each : (i + 1) * each], stick, budget, charged=charged)
        for i, contestant in enumerate(contestants)
    )
    return Comparison(
        name=name,
        objectives=tuple(f"{o.direction} {o.label}" for o in problem.objectives),
        constraints=tuple(map(str, problem.constraints)),
        size=problem.tree.size,
        exact=exact,
        yardstick=stick,
        seeds=tuple(range(asking.seeds)),
        budget=budget,
        within=stick.near if asking.within is None else asking.within,
        charged=charged,
        entries=entries,
        left_out=left_out,
    )
