"""Answers to questions about finished trials: the best by some metric, and the knee of the front."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from paretobit.errors import BadInput
from paretobit.studies.trial import Trial
from paretobit.wanted.front import non_dominated
from paretobit.wanted.objectives import Constraint, Knee, Metrics, Objective, parse_question
from paretobit.wanted.wanted import check_answerable

_LOG_BEYOND = 10.0
"""An objective that spans more than this factor over the front is seen on a logarithmic axis."""
_ALIKE = 9
"""Decimals to which distances from the chord are told apart."""


def answer(
    measured: Iterable[tuple[int, Metrics]],
    objectives: Sequence[Objective],
    baseline: Metrics,
    question: str | None = None,
    resolve: Callable[[str], str] = str,
) -> int:
    """The number of the trial that answers a question.

    Args:
        measured: Number and metrics of every complete trial.
        objectives: What was optimised.
        baseline: Metrics of the unmodified model.
        question: `min bitops s.t. accuracy >= baseline - 0.01`,
            `max accuracy forgiving 8% per halved bitops`, `knee`; unset: the best first objective.
            Ties are broken by the other objectives, then by the trial's number.
        resolve: Full name of a metric.

    Raises:
        BadInput: The question names an unknown metric, or no trial satisfies it.
    """
    asked = None if question is None else parse_question(question).resolved(resolve)
    constraints: tuple[Constraint, ...] = () if asked is None else asked.constraints
    order = list(objectives)
    if isinstance(asked, Knee):
        check_answerable(asked, len(objectives))
    elif asked is not None:
        wanted = asked.objective.against(baseline)
        order = [wanted, *(objective for objective in objectives if objective != wanted)]
    number_of_trials, fitting = 0, []
    for number, metrics in measured:
        number_of_trials += 1
        if all(constraint.holds(metrics, baseline) for constraint in constraints):
            fitting.append(([objective.loss(metrics) for objective in order], number, metrics))
    if not fitting:
        found, problem = question or "any feasible trial", "no trial satisfies it"
        raise BadInput(f"{problem} ({number_of_trials} feasible trials)", key="best", found=found)
    if not isinstance(asked, Knee):
        return min(fitting, key=lambda trial: trial[:2])[1]
    front = non_dominated(fitting, lambda trial: trial[0])
    return front[knee_of([metrics for _, _, metrics in front], objectives)][1]


def knee_of(front: Sequence[Metrics], objectives: Sequence[Objective]) -> int:
    """Which point of a front bends farthest toward the ideal: beyond it, little gain costs much.

    Every objective is normalised over the front, 0 where it is best and 1 where it is worst; one that
    is positive and spans more than a factor of 10 enters by its logarithm. The knee is the point
    farthest from the chord between the two ends of the front, on the side of the ideal (Das 1999,
    "On characterizing the knee of the Pareto curve based on normal-boundary intersection"). With `m`
    objectives, the chord is the hyperplane through the `m` corners that are best in one objective and
    worst in all others, `Σ = m - 1`; the farthest point is then that of the smallest sum. Objectives
    that do not vary over the front are left out. Where nothing bends toward the ideal, and where
    points are alike, the knee is the one that is best in the first objective.

    Args:
        front: Metrics of its points, sorted by the first objective; at least one.
        objectives: What was optimised.

    Returns:
        Index into `front`.

    >>> loss, cost = Objective.of("loss", "minimize"), Objective.of("cost", "minimize")
    >>> knee_of([{"loss": 1, "cost": 9}, {"loss": 2, "cost": 3}, {"loss": 9, "cost": 1}], [loss, cost])
    1
    """
    axes = [_normalised([o.value(m) for m in front], o.direction == "maximize") for o in objectives]
    varied = [axis for axis in axes if axis is not None]
    distances = [
        round((len(varied) - 1 - sum(place)) / math.sqrt(len(varied)), _ALIKE) for place in zip(*varied, strict=True)
    ]
    return distances.index(max(distances)) if distances else 0


def rejected_unrun(trials: Iterable[Trial], about: Mapping[str, Mapping[str, object]]) -> int:
    """How many trials broke a constraint that needs no model: they count, and the model never ran.

    Args:
        trials: All.
        about: Metric to what is known of it; `cheap` says that it needs no model.
    """
    expensive = [name for name, known in about.items() if not known["cheap"]]
    infeasible = (trial for trial in trials if trial.state == "infeasible")
    return sum(bool(expensive) and all(name not in t.metrics for name in expensive) for t in infeasible)


def _normalised(values: Sequence[float], maximised: bool) -> list[float] | None:
    """From 0, the best, to 1, the worst; None where all are alike."""
    low, high = min(values), max(values)
    if low > 0 and high > _LOG_BEYOND * low:
        values = [math.log10(value) for value in values]
        low, high = min(values), max(values)
    if not low < high:
        return None
    if math.isinf(high - low):
        raise BadInput("a front with infinite values has no knee", key="best", found="knee")
    best = high if maximised else low
    return [abs(value - best) / (high - low) for value in values]
