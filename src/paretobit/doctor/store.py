"""What is measured is what the study gives back."""

from pathlib import Path
from tempfile import TemporaryDirectory

from paretobit.doctor.base import Finding, Patient, exact
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.wanted.objectives import Metrics


def study_gives_back(patient: Patient) -> Finding:
    """Configurations and metrics through JSON and SQLite, in a temporary file, to the last bit."""
    measured = [(config, o) for config, o in patient.recorded.items() if config is not None]
    trials = [
        Trial(number, config, outcome.state, outcome.metrics, outcome.error, seed=patient.bench.seed_of(config))
        for number, (config, outcome) in enumerate(measured)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        with Study(path) as study:
            study.record(baseline=dict(patient.baseline))
            for trial in trials:
                study.add(trial)
        with Study.open(path) as read:
            pairs = [(repr(_bits(patient.baseline)), repr(_bits(read.baseline)))]
            pairs += [(_told(trial), _told(stored)) for trial, stored in zip(trials, read, strict=True)]
    different = [(given, stored) for given, stored in pairs if given != stored]
    evidence = {"trials": len(trials), "different": len(different)}
    if different:
        given, stored = different[0]
        return Finding("failed", f"{len(different)} of {len(pairs)} differ: {given} came back as {stored}", evidence)
    return Finding("ok", f"{len(trials)} trials and the baseline the same to the last bit", evidence)


def _told(trial: Trial) -> str:
    """Everything of a trial that must not change, with every bit of its numbers."""
    return repr((trial.number, dict(trial.config), trial.state, _bits(trial.metrics), trial.error, trial.seed))


def _bits(metrics: Metrics) -> dict[str, str]:
    return {name: exact(value) for name, value in metrics.items()}
