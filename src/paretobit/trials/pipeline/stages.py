"""What a trial's model was worth before its last step."""

from collections.abc import Sequence
from dataclasses import replace

from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import Candidate, Runner, RunnerSettings
from paretobit.trials.steps import PipelineSettings
from paretobit.wanted.metric import Metric

EPOCHS = "epochs"
CONTROL = "control"


def stage_name(metric: str, stage: str) -> str:
    """The name of a metric at an earlier stage.

    >>> stage_name("accuracy", "train"), stage_name("accuracy", "control")
    ('accuracy_after_train', 'accuracy_control')
    """
    return f"{metric}_{CONTROL}" if stage == CONTROL else f"{metric}_after_{stage}"


class StageRunner(Runner):
    """Hands on what the pipeline measured on its way, and how many epochs it trained.

    Args:
        evidence: Not looked at.
        settings: The pipeline's.
        runners: Those that measured.
    """

    def __init__(self, evidence: Evidence, settings: PipelineSettings, runners: Sequence[Runner]) -> None:
        super().__init__(evidence, RunnerSettings())
        stages = (*settings.stages, *((CONTROL,) if settings.control else ()))
        measured = [m for runner in runners if measures_stages(runner) for m in runner.metrics]
        of_stages = [replace(m, name=stage_name(m.name, s), short=None) for s in stages for m in measured]
        self.metrics: tuple[Metric, ...] = (*of_stages, Metric(EPOCHS, "minimize", "epochs"))

    def measure(self, candidate: Candidate) -> dict[str, float]:
        return dict(candidate.stages)


def measures_stages(runner: Runner) -> bool:
    """Whether a runner looks at the model at every evaluation: how well it works, not how fast it runs."""
    return not runner.cheap and runner.kind == "software" and not isinstance(runner, StageRunner)
