"""How good a front each strategy finds, judged on test data, and what it cost to find.

`guided` against the uniform grid, random, TPE and NSGA-II, each also with the uniform grid put in
first. Hypervolume: the area under the front found on validation loss, of test accuracy (or below test
loss) against the logarithm of the cost, 1 being a perfect model at no cost. `guided` is given few
trials: all its seconds of the processor, tracing and calibration included, are told in evaluations, which
are timed before and after it.

    python benchmarks/sample_efficiency.py [--case resnet20_wa] [--seeds 0 1 2] [--trials 200] [--json]
    python benchmarks/sample_efficiency.py --case path/to/file.py:function

A case is a function of a seed; see `benchmarks/cases.py` for what it gives. What baselines measured is
kept in `--cache` and never measured again.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
from output import parser_of, show
from timing import cpu, in_units

import paretobit as pb
from paretobit.document import Document
from paretobit.runtime import derive_seed, seed_everything, use_one_thread
from paretobit.spaces.knobs import Config, Knob
from paretobit.strategies import STRATEGIES
from paretobit.strategies.optuna_samplers import OptunaSettings
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import fingerprint
from paretobit.trials.runners import BasicEvaluation, Candidate
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.assemble import evidence_for, make_runners

GUIDED = "guided"
LIMITS = {"cases.resnet20_wa": {"accuracy": 0.80, "loss": 0.70}}
EQUIVALENTS = 60
OF_TRUE_FRONT = 0.99
EXHAUSTIVE = 20_000
WARMED_UP, TIMED = 1, 5


@dataclass(frozen=True)
class Point:
    """A configuration on the validation split; its cost is mean BitOPs per multiply-accumulate."""

    config: Config
    cost: float
    accuracy: float
    loss: float


class Case:
    """One seed of a case: measures configurations, and remembers them on disk."""

    def __init__(self, name: str, function: Callable[[int], Mapping[str, Any]], seed: int, cache: Path) -> None:
        self.given = function(seed)
        self.seed, self.model, self.space = seed, self.given["model"], self.given["space"]
        splits = {split: self.given[split] for split in ("val", "test")}
        self.evidence = evidence_for(self.model, splits, calibration=self.given["calibration"])
        self.bound = self.space.bind(self.evidence.graph, self.evidence.calibration)
        self.runners = make_runners(None, self.evidence, None, {}, Document())
        (evaluation,) = (r for r in self.runners if isinstance(r, BasicEvaluation))
        self.judge = BasicEvaluation(self.evidence, evaluation.settings.model_copy(update={"split": "test"}))
        self.bench = Bench(self.bound, self.runners, seed)
        self.prepared = self.bound.prepare()
        self.baseline = self.bench.baseline().metrics
        wanted = Wanted.of((), ("loss", "bitops"))
        self.problem = Problem.build(self.bound.tree, wanted, self.runners, self.baseline)
        prints = [*fingerprint(self.model, splits).values(), self.bound.tree.fingerprint, str(seed)]
        self.path = cache / f"{name.rpartition(':')[2].rpartition('/')[2]}-{'-'.join(prints)}.jsonl"
        self.known: dict[tuple[str, Config], dict[str, float]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                stored = json.loads(line)
                self.known[stored["split"], Config(stored["config"])] = stored["metrics"]

    def measure(self, config: Config) -> dict[str, float]:
        """Metrics of a configuration on the validation split, and those that need no model."""
        return self._remembered("val", config, self._measured)

    def tested(self, config: Config) -> dict[str, float]:
        """Accuracy and loss on the test split."""
        return self._remembered("test", config, self._judged)

    def _measured(self, config: Config) -> Mapping[str, float]:
        outcome = self.bench.evaluate(config)
        if outcome.error:
            raise SystemExit(outcome.error)
        return outcome.metrics

    def _judged(self, config: Config) -> Mapping[str, float]:
        seed_everything(derive_seed(self.seed, "test"))
        return self.judge.measure(Candidate({}, self.bound.apply(self.prepared, config)))

    def _remembered(
        self, split: str, config: Config, measure: Callable[[Config], Mapping[str, float]]
    ) -> dict[str, float]:
        if (split, config) not in self.known:
            metrics = self.known[split, config] = dict(measure(config))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({"split": split, "config": dict(config), "metrics": metrics}) + "\n")
        return self.known[split, config]

    @staticmethod
    def point(config: Config, metrics: Mapping[str, float]) -> Point:
        """What of the metrics is drawn."""
        cost = 2 * metrics["total_bitops"] / metrics["total_flops"]
        return Point(config, cost, metrics["accuracy"], metrics["loss"])

    def uniform(self) -> list[Config]:
        """Every configuration in which all layers take the same option, as far as they have it."""
        tree = self.bound.tree
        numbers: dict[str, int] = {}
        for knob in tree.all_knobs():
            numbers[_kind(knob)] = max(numbers.get(_kind(knob), 0), len(knob.values))
        picks = (dict(zip(numbers, pick, strict=True)) for pick in itertools.product(*map(range, numbers.values())))
        return list(dict.fromkeys(tree.walk(functools.partial(_nth, pick)) for pick in picks))

    def evaluation_seconds(self) -> float:
        """Median time of one validation evaluation of a quantised model."""
        configs = [config for config in self.uniform() if config.get("correction", "none") == "none"]
        times = []
        for config in configs[: WARMED_UP + TIMED]:
            start = cpu()
            self.bench.evaluate(config)
            times.append(cpu() - start)
        return statistics.median(times[WARMED_UP:])


def _kind(knob: Knob) -> str:
    """A knob's name without its layer."""
    return knob.name.partition(".")[2] or knob.name


def _nth(pick: Mapping[str, int], knob: Knob) -> Any:
    return knob.values[min(pick[_kind(knob)], len(knob.values) - 1)]


class Yardstick:
    """The hypervolume of a case."""

    def __init__(self, case: Case) -> None:
        given, classes = case.given, int(case.given["val"][1].max()) + 1
        self.tested = case.tested
        self.low, self.high = given.get("low", 6.0), given.get("high", 64.0)
        self.worst = {"accuracy": given.get("worst_accuracy", 1 / classes)}
        self.worst["loss"] = given.get("worst_loss", math.log(classes))

    def judged(self, points: list[Point], metric: str) -> float:
        """Of the front by validation loss, as the test split sees it."""
        front = _front(points, lambda point: point.loss)
        return self._area(front, [self._harm(self.tested(point.config)[metric], metric) for point in front])

    def chosen(self, points: list[Point], metric: str) -> float:
        """Of the front by a metric, both on the validation split."""

        def harm(point: Point) -> float:
            return self._harm(getattr(point, metric), metric)

        front = _front(points, harm)
        return self._area(front, list(map(harm, front)))

    def _area(self, front: list[Point], harms: list[float]) -> float:
        area = 0.0
        ends = [*(point.cost for point in front[1:]), self.high]
        for point, harm, end in zip(front, harms, ends, strict=True):
            left, right = (min(max(cost, self.low), self.high) for cost in (point.cost, end))
            area += max(0.0, 1 - harm) * math.log(right / left)
        return area / math.log(self.high / self.low)

    def _harm(self, value: float, metric: str) -> float:
        """0 for a perfect model, 1 for a useless one."""
        worst = self.worst[metric]
        return float((1 - value) / (1 - worst) if metric == "accuracy" else value / worst)


def _front(points: list[Point], harm: Callable[[Point], float]) -> list[Point]:
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, harm(point))):
        if not front or harm(point) < harm(front[-1]):
            front.append(point)
    return front


def black_box(case: Case, sampler: str, trials: int, first: list[Config]) -> list[Point]:
    """A sampler's points, after those that it is given."""
    problem = case.problem
    strategy = STRATEGIES["optuna"](problem, case.seed, OptunaSettings(sampler=sampler))
    given = [Trial(i, config, "complete", case.measure(config)) for i, config in enumerate(first)]
    strategy.learn(given)
    points = [case.point(trial.config, trial.metrics) for trial in given]
    for number in range(len(given), trials):
        (config,) = strategy.ask(1)
        metrics = case.measure(config)
        strategy.tell([Trial(number, config, "complete", metrics)])
        points.append(case.point(config, metrics))
    return points


def guided(case: Case, trials: int) -> tuple[list[Point], float]:
    """Its points, and the seconds of the processor of the whole search."""
    start = cpu()
    study = pb.search(
        case.model,
        space=case.space,
        calibration=case.given["calibration"],
        val=case.given["val"],
        minimize=["loss", "bitops"],
        strategy=GUIDED,
        n_trials=trials,
        seed=case.seed,
    )
    seconds = cpu() - start
    return [case.point(trial.config, trial.metrics) for trial in study], seconds


def compare(case: Case, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Method to its figures, on one seed."""
    yardstick = Yardstick(case)
    units = [case.evaluation_seconds()]
    points, seconds = guided(case, arguments.guided_trials or case.given.get("guided_trials", 24))
    units.append(case.evaluation_seconds())
    found: dict[str, list[Point]] = {GUIDED: points}
    uniform = case.uniform()
    found["uniform grid"] = [case.point(config, case.measure(config)) for config in uniform]
    for sampler in arguments.samplers:
        found[sampler] = black_box(case, sampler, arguments.trials, [])
        found[f"{sampler}, uniform first"] = black_box(case, sampler, arguments.trials, uniform)
    figures = {
        name: {"trials": float(len(own)), **{metric: yardstick.judged(own, metric) for metric in ("accuracy", "loss")}}
        for name, own in found.items()
    }
    (equivalents,) = in_units([seconds], units)
    figures[GUIDED] |= {"equivalents": equivalents, "seconds": seconds, "evaluation_seconds": seconds / equivalents}
    if case.bound.tree.size <= EXHAUSTIVE:
        tree = case.bound.tree
        configs = map(tree.at, range(tree.size))
        everything = [case.point(config, case.measure(config)) for config in configs]
        for metric in ("accuracy", "loss"):
            of_all = yardstick.chosen(everything, metric)
            for name, own in found.items():
                figures[name][f"{metric} of true front"] = yardstick.chosen(own, metric) / of_all
    return figures


def load(name: str) -> Callable[[int], Mapping[str, Any]]:
    """A case by name, or by `file.py:function`."""
    if ":" not in name:
        function: Callable[[int], Mapping[str, Any]] = getattr(cases, name)
        return function
    path, _, wanted = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).exists():
        raise SystemExit(f"no such file: {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, wanted)  # type: ignore[no-any-return]


def summary(name: str, by_seed: list[dict[str, dict[str, float]]]) -> tuple[dict[str, Any], list[str]]:
    """Means, the smallest paired differences, and what misses its limit."""
    methods = list(by_seed[0])
    means = {
        method: {key: statistics.mean(seed[method][key] for seed in by_seed) for key in by_seed[0][method]}
        for method in methods
    }
    missed = []
    smallest = {}
    limits = LIMITS.get(f"cases.{name}", {})
    for metric in ("accuracy", "loss"):
        for method in methods[1:]:
            smallest[f"{metric}: guided - {method}"] = least = min(
                seed[GUIDED][metric] - seed[method][metric] for seed in by_seed
            )
            if least <= 0 and metric in limits:
                missed.append(f"{metric}: {method} is better by {-least:.4f} on a seed")
        limit = limits.get(metric, 0.0)
        if means[GUIDED][metric] < limit:
            missed.append(f"{metric}: {means[GUIDED][metric]:.4f} is below {limit}")
        share = means[GUIDED].get(f"{metric} of true front", 1.0)
        if share < OF_TRUE_FRONT:
            missed.append(f"{metric}: {share:.4f} of the true front is below {OF_TRUE_FRONT}")
    most = max(seed[GUIDED]["equivalents"] for seed in by_seed)
    if name == "resnet20_wa" and most > EQUIVALENTS:
        missed.append(f"{most:.1f} evaluation-equivalents are more than {EQUIVALENTS}")
    return {"means": means, "smallest differences": smallest}, missed


def text(result: Mapping[str, Any]) -> str:
    """A line a method, a line a difference."""
    lines = [
        f"{method:26} " + "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        for method, figures in result["means"].items()
    ]
    differences = result["smallest differences"].items()
    return "\n".join([*lines, *(f"{key:30} {value:+.4f}" for key, value in differences)])


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--case", default="resnet20_wa", help="a name in cases.py, or file.py:function")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=200, help="of each baseline")
    parser.add_argument("--samplers", nargs="*", default=["random", "tpe", "nsgaii"], help="baselines")
    parser.add_argument("--guided-trials", type=int, help="unset: as the case says, or 24")
    parser.add_argument("--cache", type=Path, default=Path(".cache/sample_efficiency"))
    arguments = parser.parse_args()

    use_one_thread()
    function = load(arguments.case)
    by_seed = []
    for seed in arguments.seeds:
        case = Case(arguments.case, function, seed, arguments.cache)
        by_seed.append(compare(case, arguments))
        print(f"seed {seed}: {json.dumps(by_seed[-1][GUIDED])}", file=sys.stderr)
    result, missed = summary(arguments.case, by_seed)
    show({**result, "missed": missed}, arguments, text(result))
    for complaint in missed:
        print(complaint, file=sys.stderr)
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
