"""The same seed gives the same proposals."""

import random

from paretobit.doctor.base import Finding, Patient
from paretobit.runtime import MAX_SEED, derive_seed
from paretobit.spaces.knobs import Config
from paretobit.strategies import STRATEGIES
from paretobit.studies.trial import State, Trial

_ASKED = 20


def seeds_reproduce(patient: Patient) -> Finding:
    """A strategy asked and told the same twice proposes the same; with another seed, something else."""
    asked = min(_ASKED, patient.tree.size)
    seeds = (patient.seed, patient.seed, (patient.seed + 1) % (MAX_SEED + 1))
    first, again, other = (rehearsed(patient, seed, asked) for seed in seeds)
    evidence = {"asked": asked, "same": first == again, "other_seed_differs": first != other}
    if first != again:
        at = next((k for k, pair in enumerate(zip(first, again, strict=False)) if pair[0] != pair[1]), len(again))
        return Finding("failed", f"the same seed proposes something else from trial {at} on", evidence)
    said = f"{len(first)} proposals of {patient.session.strategy} the same twice"
    if first != other:
        return Finding("ok", f"{said}, others with another seed", evidence)
    if STRATEGIES[patient.session.strategy].draws(patient.session.strategy_settings) and asked > 2:
        return Finding("failed", f"{said}, and with another seed, although it draws them", evidence)
    return Finding("ok", f"{said}, and with another seed: it draws nothing", evidence)


def rehearsed(patient: Patient, seed: int, number: int) -> list[Config]:
    """What a strategy would propose, told invented results in the place of measured ones.

    Costs are the true ones. What needs the model run is drawn for each configuration between the
    smallest and the largest value seen: the same twice, whoever asks.
    """
    problem = patient.make_problem()  # with nothing that another rehearsal left
    strategy = STRATEGIES[patient.session.strategy](problem, seed, patient.session.strategy_settings)
    proposals: list[Config] = []
    for k in range(number):
        asked = strategy.ask(1)
        if not asked:
            break
        metrics = {**_invented(patient, asked[0]), **patient.bench.cheap_metrics(asked[0])}
        state: State = "infeasible" if problem.violation(metrics) > 0 else "complete"
        strategy.tell([Trial(k, asked[0], state, metrics, asked_after=k)])
        proposals.append(asked[0])
    return proposals


def _invented(patient: Patient, config: Config) -> dict[str, float]:
    seen = [outcome.metrics for outcome in patient.recorded.values()]
    draw = random.Random(derive_seed(patient.seed, list(config.items())))
    invented = {}
    for name in patient.baseline:
        values = [metrics[name] for metrics in seen if name in metrics]
        invented[name] = min(values) + draw.random() * (max(values) - min(values))
    return invented
