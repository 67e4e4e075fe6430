"""Whatever a model is made of and whatever it returns: the search ends, and a trial measured what it delivers."""

import random
import re

import torch
from many_cases import each
from odd_models import ENDINGS, FEATURES, numbers, odd_model

import paretobit as pb

FORMATS = (
    {"name": "scaled_integer", "weight_width": [2, 4, 8], "data_in_width": [4, 8]},
    {
        "name": "integer",
        "weight_width": [4, 8],
        "weight_frac_width": 3,
        "data_in_width": [6, 8],
        "data_in_frac_width": 3,
    },
    {"name": "minifloat_ieee", "weight_width": [6, 8], "weight_exponent_width": 3, "data_in_width": [8, 9]}
    | {"data_in_exponent_width": 4},
    {"name": "block_fp", "weight_width": [3, 8], "data_in_width": [4, 8]},
    {"weight": ["nvfp4", "mxfp8_e4m3", "ternary"], "data_in": ["mxint8", "scaled_integer(width=6, calibration=mse)"]},
)
SCORED = 2  # the seed of a model in bfloat16
X = torch.randn(24, FEATURES, generator=torch.Generator().manual_seed(0))


def searched(seed, ending=None, strategy="guided", n_trials=6):
    """A search over a drawn model and a drawn format, and what measures a model."""
    model = odd_model(seed, ending)
    wanted = numbers(model(X))

    def evaluate(candidate):
        given = numbers(candidate(X.clone()))
        if given.shape != wanted.shape:
            return {"error": 1e3}
        return {"error": float((given - wanted).norm().nan_to_num(1e9))}

    space = pb.Quantize(by="type", seed={"linear": random.Random(seed).choice(FORMATS)})
    study = pb.search(
        model,
        space=space,
        evaluate=evaluate,
        example=X[:2],
        calibration=[X[:12], X[12:]],
        minimize=["error", "bitops"],
        strategy=strategy,
        n_trials=n_trials,
    )
    return study, evaluate


def check(study, evaluate, n_trials):
    assert len(study.trials) == min(n_trials, int(study.facts["size"]))
    for trial in study.trials:
        assert trial.state in ("complete", "duplicate"), trial.error
        if trial.state == "complete":
            assert evaluate(trial.model())["error"] == trial.metrics["error"]


@each("seed", range(6))
def test_trials_are_complete_and_measure_the_model_that_is_delivered(seed):
    check(*searched(seed, strategy=("random", "tpe", "guided")[seed % 3]), 6)


NOTES = {
    "plain": None,
    "table": None,
    "tuple": None,
    "argmax": "no scores diagonal, directional, kl: scores need an output of floating-point numbers.*torch.int64",
    "indices": "no scores diagonal, directional, kl: scores need an output of floating-point numbers.*torch.int64",
    "no tensor": "no scores diagonal, directional, kl: no tensor here: found 'list'",
    "no backward": "no scores diagonal, directional: .* NotImplementedError: there is no backward$",
    "in place": "no scores diagonal, directional: .* RuntimeError: .* modified by an inplace operation",
    "no gradient": "no scores diagonal, directional: no gradient reaches the layers",
    "NumPy": "no scores diagonal, directional: no gradient reaches the layers",
    "steps": "no scores diagonal, directional: no gradient reaches a layer that the output depends on",
    "rows that depend on data": "no scores .*: (the shape of the output depends|.* ZeroDivisionError)",
}


@each(("ending", "note"), NOTES.items())
def test_where_scores_cannot_be_computed_a_note_says_why_and_groups_are_measured(ending, note):
    assert set(NOTES) == set(ENDINGS)
    study, evaluate = searched(SCORED, ending, n_trials=10)
    check(study, evaluate, 10)
    notes = study.facts.get("notes", [])
    of_scores = [said for said in notes if re.match("no scores? ", said)]
    assert not of_scores if note is None else any(re.search(note, said) for said in of_scores), notes
    probed = "no score tells harm beforehand: one group at a time is measured" in notes
    assert probed == (note is not None and "kl" in note)
    assert not any("\n" in said for said in notes)


def test_a_search_begun_without_gradients_is_the_same_search():
    plain, _ = searched(SCORED, "plain")
    for surroundings in (torch.inference_mode(), torch.no_grad()):
        with surroundings:
            study, _ = searched(SCORED, "plain")
        assert [(t.config, t.metrics["error"]) for t in study] == [(t.config, t.metrics["error"]) for t in plain]
        assert study.facts["predicted"] == plain.facts["predicted"]
