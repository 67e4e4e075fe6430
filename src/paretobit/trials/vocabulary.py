"""The names of metrics: which runner provides which."""

from collections.abc import Sequence

from paretobit.errors import BadInput
from paretobit.trials.runners import RUNNERS, FileRunner, Runner
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import parse_question
from paretobit.wanted.wanted import Wanted, check_answerable


class Vocabulary:
    """The metrics that a set of runners provides.

    Raises:
        BadInput: Two runners provide a metric of the same name.
    """

    def __init__(self, runners: Sequence[Runner | type[Runner]]) -> None:
        self.metrics: dict[str, Metric] = {}
        providers: dict[str, str] = {}
        for runner in runners:
            provider = _named(runner)
            for metric in runner.metrics:
                if metric.name in self.metrics:
                    both = f"{providers[metric.name]} and {provider}"
                    raise BadInput(f"two runners provide the same metric: {both}", key="runners", found=metric.name)
                self.metrics[metric.name], providers[metric.name] = metric, provider

    def resolve(self, name: str) -> str:
        """The full name of a metric; short names are accepted.

        Raises:
            BadInput: No runner provides it; the runner that would is named.
        """
        for metric in self.metrics.values():
            if name in (metric.name, metric.short):
                return metric.name
        known = [*self.metrics, *(m.short for m in self.metrics.values() if m.short)]
        provider = next((e.name for e in RUNNERS if any(name in (m.name, m.short) for m in e.value.metrics)), None)
        problem = f"no runner in use provides this metric: add '{provider}'" if provider else "unknown metric"
        raise BadInput(problem, key="metric", found=name, allowed=known)


def check_before_work(wanted: Wanted, runners: Sequence[Runner], best: str | None = None) -> None:
    """Refuse unknown metrics early; what a user's function returns is known only after the baseline.

    Args:
        wanted: Objectives and constraints.
        runners: What provides metrics.
        best: The question whose answer is kept.
    """
    question = None if best is None else parse_question(best)
    if question is not None:
        check_answerable(question, len(wanted.objectives))
    if not any(runner.metrics_from_running for runner in runners):
        resolve = Vocabulary(runners).resolve
        wanted.resolved(resolve)
        if question is not None:
            question.resolved(resolve)


def _named(runner: Runner | type[Runner]) -> str:
    """A runner as the user knows it."""
    if isinstance(runner, FileRunner):
        return runner.reference
    kind = runner if isinstance(runner, type) else type(runner)
    return next((e.name for e in RUNNERS if e.value is kind), "evaluate")
