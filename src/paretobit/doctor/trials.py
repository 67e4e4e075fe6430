"""Nothing leaks: from one trial to the next, into another process, or into what is the caller's."""

import random
from collections.abc import Iterable, Sequence
from contextlib import closing

import numpy as np
import torch

from paretobit.doctor.base import Finding, Patient
from paretobit.errors import BadInput
from paretobit.runtime import seeded
from paretobit.session.engines.processes import ProcessEngine
from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.outcome import Outcome


def configurations_run(patient: Patient) -> Finding:
    """Every configuration of a sample can be measured."""
    outcomes = [patient.outcome(config) for config in patient.samples]
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    evidence = {"configurations": len(outcomes), "failed": len(failures)}
    if failures:
        last = (failures[0].error or "").strip().rpartition("\n")[2]
        return Finding("failed", f"{len(failures)} of {len(outcomes)} configurations fail: {last}", evidence)
    return Finding("ok", f"{len(outcomes)} configurations measured", evidence)


def trials_do_not_leak(patient: Patient) -> Finding:
    """First, in the middle and last, a configuration gives the same; so does the baseline after it."""
    return _same(patient, patient.bench, [None, *reversed(patient.samples)], "the other way round")


def fresh_copy_agrees(patient: Patient) -> Finding:
    """A model prepared anew gives what the used one gave, from the middle of the order on."""
    half = len(patient.samples) // 2
    turned = [*patient.samples[half:], *patient.samples[:half], None]
    return _same(patient, patient.session.make_bench(), turned, "on a fresh copy of the model")


def worker_agrees(patient: Patient) -> Finding:
    """A trial in another process gives the same."""
    config = patient.samples[-1]
    patient.outcome(config)
    try:
        engine = ProcessEngine(patient.session.make_bench)
    except BadInput as error:
        return Finding("not applicable", str(error))
    with closing(engine):
        engine.submit(config)
        outcome = engine.next().outcome
    patient.counted += 1
    return _compared(patient, [(config, outcome)], "in a worker process")


def nothing_changed(patient: Patient) -> Finding:
    """Weights, data, modes, gradients, the interpreter's settings and random states are as they were."""
    states = _random_states()
    with seeded(patient.seed):
        patient.evaluate(patient.bench, patient.samples[0])
    changed = ["states of random generators"] if _random_states() != states else []
    after = patient.circumstances()
    changed += patient.before.differences(after)
    evidence = {"digests": dict(after.digests), "evaluations": patient.counted, "changed": changed}
    if changed:
        return Finding("failed", f"changed by trials: {', '.join(changed)}", evidence)
    said = f"model, data, modes and random states as before, after {patient.counted} evaluations"
    return Finding("ok", said, evidence)


def _same(patient: Patient, bench: Bench, order: Sequence[Config | None], how: str) -> Finding:
    """Evaluate once more, in another order, and compare."""
    for config in patient.samples:
        patient.outcome(config)  # in the first order, where that was not done yet
    return _compared(patient, [(config, patient.evaluate(bench, config)) for config in order], how)


def _compared(patient: Patient, again: Iterable[tuple[Config | None, Outcome]], how: str) -> Finding:
    again = list(again)
    found = [(config, patient.unlike(patient.recorded[config], outcome)) for config, outcome in again]
    different = [(config, what) for config, what in found if what is not None]
    evidence = {"compared": len(found), "different": len(different)}
    if different:
        config, what = different[0]
        whose = "the baseline" if config is None else f"{dict(config)}"
        return Finding("failed", f"{len(different)} of {len(found)} differ {how}: {what} of {whose}", evidence)
    aside = f"; times aside: {', '.join(sorted(patient.timed))}" if patient.timed else ""
    baseline = " and the baseline" if any(config is None for config, _ in found) else ""
    number = sum(config is not None for config, _ in found)
    plural = "s" if number > 1 else ""
    return Finding("ok", f"{number} configuration{plural}{baseline} the same to the last bit {how}{aside}", evidence)


def _random_states() -> tuple[bytes, str, str]:
    """Of torch, NumPy and `random`."""
    name, keys, *rest = np.random.get_state(legacy=True)
    torch_state = torch.get_rng_state().numpy().tobytes()
    return torch_state, f"{name}{np.asarray(keys).tobytes().hex()}{rest}", str(random.getstate())
