"""Choices of the knobs that change shapes: each is a region of its own, with tables of its own."""

import itertools
from collections.abc import Callable, Iterator, Sequence

from paretobit.spaces.knobs import Config, Tree
from paretobit.strategies.brute_force import permutation
from paretobit.strategies.guided.board import Board, Point
from paretobit.strategies.optuna_samplers import OptunaSettings, OptunaStrategy
from paretobit.strategies.problem import Problem
from paretobit.studies.trial import Trial
from paretobit.trials.vocabulary import Vocabulary
from paretobit.wanted.hypervolume import hypervolume
from paretobit.wanted.objectives import Objective

AT_RANDOM = "random"
_LOSS = "loss"
_HOPELESS = 1e9  # told of choices without an answer: samplers need a number, and any real loss is smaller
_REPEATS = 20  # proposals a choice: a sampler that has settled proposes what it knows, and would do so forever


def choices(tree: Tree, number: int, sampler: str, seed: int, loss: Callable[[int], float]) -> Iterator[Config]:
    """At most `number` different choices: all of them where there are no more.

    Args:
        tree: The knobs that change shapes.
        number: How many.
        sampler: `random`, or one of Optuna's: it is told what became of a choice before it is asked for
            the next.
        seed: Decides the order.
        loss: What became of choice 0, 1, …: smaller is better.
    """
    if tree.size <= number:
        yield from (tree.at(index) for index in range(tree.size))
    elif sampler == AT_RANDOM:
        yield from (tree.at(index) for index in itertools.islice(permutation(tree.size, seed), number))
    else:
        yield from _sampled(tree, number, sampler, seed, loss)


def _sampled(tree: Tree, number: int, sampler: str, seed: int, loss: Callable[[int], float]) -> Iterator[Config]:
    objective = Objective.of(_LOSS, "minimize")
    problem = Problem(tree, (objective,), (), (), {_LOSS: 0.0}, Vocabulary(()))
    strategy = OptunaStrategy(problem, seed, OptunaSettings(sampler=sampler))
    known: dict[Config, int] = {}
    asked = 0
    while len(known) < number and asked < number * _REPEATS:
        proposals = strategy.ask(1)
        if not proposals:
            return
        (config,) = proposals
        if config not in known:
            known[config] = len(known)
            yield config
        strategy.tell([Trial(asked, config, "complete", {_LOSS: loss(known[config])})])
        asked += 1


def loss_of(points: Sequence[Point], board: Board, costs: Sequence[str]) -> float:
    """What a region's points are worth: the answer it gives, or less the area that its front dominates.

    Args:
        points: Those of the region.
        board: All points.
        costs: The costs, the first of which the front is looked at along.
    """
    feasible = [point for point in points if point.feasible]
    if not feasible:
        return _HOPELESS
    if board.sole is not None:
        return min(min(p.harm if board.sole == "harm" else p.costs[costs[0]], _HOPELESS) for p in feasible)

    def place(point: Point) -> tuple[float, ...]:
        return (*(point.costs[cost] for cost in costs), board.level(point))

    everything = [place(point) for point in board.points.values()]
    corner = [max(values) + 1e-9 for values in zip(*everything, strict=True)]
    return -hypervolume([place(point) for point in feasible], corner)
