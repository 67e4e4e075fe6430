"""Trials that train: what happens at each step, and that nothing is left to the next trial."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import paretobit as pb
from paretobit.errors import BadInput, ParetoBitError
from paretobit.formats import Integer, ScaledInteger
from paretobit.nn.masks import sparsity_of
from paretobit.nn.quantized import formats_of
from paretobit.spaces.training import Training

FORMAT = {"name": "scaled_integer", "weight_width": [2, 8], "data_in_width": 8}
QUICK = {"max_epochs": 2, "learning_rate": 0.01, "batch_size": 64}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(600, 4, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    return {"train": (x[:400], y[:400]), "val": (x[400:500], y[400:500]), "test": (x[500:], y[500:])}


def search(model, data, steps, **more):
    given = {
        "space": pb.Quantize(seed={"default": FORMAT}),
        "maximize": "accuracy",
        "minimize": "bitops",
        "pipeline": {"steps": steps, **{s: QUICK for s in steps if s in ("train", "finetune")}},
        **more,
    }
    return pb.search(model, **data, **given)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_callers_model_is_not_trained(model, data):
    before = weights(model)
    search(model, data, ["quantize", "train", "evaluate"])
    assert same(before, weights(model))


def test_a_trial_gives_the_same_first_in_the_middle_and_last(model, data):
    forwards = search(model, data, ["quantize", "train", "evaluate"], strategy="brute_force")
    shuffled = {"name": "brute_force", "order": "reverse"}
    try:
        backwards = search(model, data, ["quantize", "train", "evaluate"], strategy=shuffled)
    except BadInput:
        backwards = search(model, data, ["quantize", "train", "evaluate"], strategy="random", n_trials=8)
    metrics = {trial.config: dict(trial.metrics) for trial in forwards if trial.state == "complete"}
    again = {trial.config: dict(trial.metrics) for trial in backwards if trial.state == "complete"}
    assert len(again) >= 2
    assert all(metrics[config] == measured for config, measured in again.items())


def test_the_trials_model_gives_the_metrics_that_were_recorded(model, data):
    study = search(model, data, ["quantize", "train", "evaluate"])
    best = study.best()
    x, y = data["val"]
    with torch.no_grad():
        accuracy = (best.model()(x).argmax(1) == y).float().mean().item()
    assert accuracy == pytest.approx(best.metrics["accuracy"], abs=1e-6)


def test_the_test_split_judges_the_weights_that_were_trained(model, data):
    study = search(model, data, ["quantize", "train", "evaluate"])
    x, y = data["test"]
    for trial in study.front():
        with torch.no_grad():
            right = (trial.model()(x).argmax(1) == y).float().mean().item()
        assert study.facts["test"][str(trial.number)]["accuracy"] == pytest.approx(right, abs=1e-6)


def test_training_makes_up_for_two_bits(model, data):
    plain = pb.search(
        search(model, data, ["train", "quantize", "evaluate"]).best().model(),
        space=pb.Quantize(seed={"default": FORMAT}), maximize="accuracy", **data,
    )  # fmt: skip
    trained = search(model, data, ["train", "quantize", "finetune", "evaluate"])
    two = lambda study: max(t.metrics["accuracy"] for t in study if 2 in t.config.values())  # noqa: E731
    assert two(trained) > two(plain)


def test_stages_are_measured_under_names_of_their_own(model, data):
    steps = ["train", "evaluate", "quantize", "evaluate", "finetune", "evaluate"]
    pipeline = {"steps": steps, "train": QUICK, "finetune": QUICK, "control": True}
    study = search(model, data, steps, pipeline=pipeline)
    two_bits = next(t for t in study if set(t.config.values()) == {2})
    kept = {"accuracy", "accuracy_after_train", "accuracy_after_quantize", "accuracy_control", "epochs"}
    assert kept <= two_bits.metrics.keys()
    assert two_bits.metrics["epochs"] == 4
    assert two_bits.metrics["loss_after_quantize"] != two_bits.metrics["loss_after_train"]
    assert study.baseline["accuracy_after_quantize"] == study.baseline["accuracy_after_train"]


def test_the_control_trains_as_long_without_formats(model, data):
    """The baseline is compressed by nothing: trained alike, it and its control are one network."""
    steps = ["train", "quantize", "finetune", "evaluate"]
    study = search(model, data, steps, pipeline={"steps": steps, "train": QUICK, "finetune": QUICK, "control": True})
    assert study.baseline["accuracy_control"] == study.baseline["accuracy"]
    assert study.baseline["loss_control"] == study.baseline["loss"]


def test_masks_come_from_the_trained_weights_and_survive_fine_tuning(model, data):
    space = pb.Prune(share="name", seed={"default": {"sparsity": [0.25, 0.5], "method": "l1-norm"}})
    pipeline = {"steps": ["train", "prune", "finetune", "evaluate"], "train": QUICK, "finetune": QUICK}
    study = search(model, data, [], space=space, pipeline=pipeline, minimize="loss")
    for trial in study.front():
        found = sparsity_of(trial.model())
        asked = {name.partition(".")[0]: value for name, value in trial.config.items()}
        assert asked.keys() == {"0", "3"}
        assert {layer: found[layer] for layer in asked} == pytest.approx(asked, abs=0.02)


def test_what_a_trial_starts_from_is_said_by_weights(model, data):
    none = {"max_epochs": 0}
    given = search(model, data, [], pipeline={"steps": ["train", "quantize", "evaluate"], "train": none})
    scratch = search(
        model, data, [],
        pipeline={"steps": ["train", "quantize", "evaluate"], "train": none, "weights": "scratch"},
    )  # fmt: skip
    assert same(weights(given.best().model()), {**weights(given.best().model()), **weights(model)})
    drawn = {name: tuple(t.model()[0].weight.flatten()[:3].tolist()) for name, t in enumerate(scratch.front())}
    assert len(set(drawn.values())) == len(drawn)  # every trial has a seed of its own
    assert all(value != tuple(model[0].weight.flatten()[:3].tolist()) for value in drawn.values())


def test_models_that_left_the_front_are_let_go(model, data, tmp_path):
    study = search(model, data, ["quantize", "train", "evaluate"], out=tmp_path / "run")
    front = {str(trial.number) for trial in study.front()}
    assert {path.name for path in (tmp_path / "run" / "trials").iterdir()} == front | {"baseline"}
    dominated = next(t for t in study if str(t.number) not in front)
    with pytest.raises(ParetoBitError, match="not kept"):
        dominated.model()


def test_a_kept_model_is_loaded_from_its_folder(model, data, tmp_path):
    study = search(model, data, ["quantize", "train", "evaluate"], out=tmp_path / "run")
    trial = study.front()[0]
    loaded = pb.load(tmp_path / "run" / "trials" / str(trial.number), model=model)
    with torch.no_grad():
        assert torch.equal(loaded(data["test"][0]), trial.model()(data["test"][0]))
    assert formats_of(loaded)["0"]["weight"] == formats_of(trial.model())["0"]["weight"]


def test_worker_processes_give_the_same_models(model, data):
    serial = search(model, data, ["quantize", "train", "evaluate"])
    apart = search(model, data, ["quantize", "train", "evaluate"], workers=2)
    assert [dict(t.metrics) for t in serial] == [dict(t.metrics) for t in apart]
    for a, b in zip(serial.front(), apart.front(), strict=True):
        assert same(weights(a.model()), weights(b.model()))


def test_the_winner_on_disk_has_the_trained_weights(model, data, tmp_path):
    study = search(model, data, ["quantize", "train", "evaluate"], out=tmp_path / "run", best="max accuracy")
    loaded = pb.load(tmp_path / "run", model=model)
    x, y = data["val"]
    with torch.no_grad():
        accuracy = (loaded(x).argmax(1) == y).float().mean().item()
    assert accuracy == pytest.approx(study.best("max accuracy").metrics["accuracy"], abs=1e-6)


def test_widths_formats_and_training_vary_together(model, data):
    space = (
        pb.ChannelMultiplier(by="group", seed={"default": [1, 2]})
        * pb.Quantize(seed={"default": FORMAT}, share="type")
        * Training(seed={"learning_rate": [0.001, 0.01]})
    )
    study = search(model, data, [], space=space, strategy="random", n_trials=6, pipeline={"train": QUICK})
    assert study.counts()["failed"] == 0
    for trial in study.front():
        widened = next(v for k, v in trial.config.items() if k.endswith("multiplier"))
        assert trial.model()[0].out_features == 16 * widened
        with FlopCounterMode(display=False) as counter:
            trial.model()(data["val"][0][:1])
        assert trial.metrics["total_flops"] >= counter.get_total_flops() / 2


def test_formats_of_an_untrained_model_have_no_fixed_scales(model, data):
    study = search(
        model, data, [], pipeline={"steps": ["quantize", "train", "evaluate"], "train": QUICK, "weights": "scratch"}
    )
    for slots in formats_of(study.best().model()).values():
        assert isinstance(slots["data_in"], ScaledInteger)


def test_a_stopped_trial_keeps_its_last_metrics_and_stays_off_the_front(model, data):
    space = Training(seed={"learning_rate": [1e-6, 3e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03]})
    long = {**QUICK, "max_epochs": 8}
    run = lambda **stop: pb.search(  # noqa: E731
        model, space=space, maximize="accuracy", strategy="random", n_trials=20, seed=4,
        pipeline={"steps": ["train", "evaluate"], "train": long, **stop}, **data,
    )  # fmt: skip
    whole, halved = run(), run(stop={"reduction": 2, "min_epochs": 1})
    stopped = [t for t in halved if t.state == "stopped"]
    assert stopped
    for trial in stopped:
        assert len(trial.curve) == trial.metrics["epochs"] in (1, 2, 4)
        assert trial.metrics["accuracy"] == trial.curve[-1].val_accuracy
        assert trial.number not in {t.number for t in halved.front()}
    epochs = lambda study: sum(len(t.curve) for t in study)  # noqa: E731
    assert epochs(halved) < epochs(whole)
    again = run(stop={"reduction": 2, "min_epochs": 1})
    assert [(t.state, dict(t.metrics)) for t in again] == [(t.state, dict(t.metrics)) for t in halved]


def test_configurations_of_one_network_are_answered_once(model, data):
    two = [1, 2]
    space = pb.ChannelMultiplier(
        by="name", on_conflict="last",
        seed={
            "0": {"config": {"name": "output_only", "channel_multiplier": two}},
            "3": {"config": {"name": "input_only", "channel_multiplier": two}},
        },
    )  # fmt: skip
    study = search(model, data, [], space=space, strategy="brute_force", minimize="flops", pipeline={"train": QUICK})
    assert len(study) == 4
    assert study.counts()["duplicate"] == 2
    for trial in study:
        if trial.state == "duplicate":
            assert trial.metrics == study[trial.duplicate_of].metrics


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ({"steps": ["tarin", "evaluate"]}, "did you mean 'train'"),
        ({"steps": ["train", "quantize"]}, "ends with its evaluation"),
        ({"steps": ["train", "evaluate"]}, "varies what no step applies"),
        ({"steps": ["train", "prune", "quantize", "evaluate"]}, "nothing for the step 'prune'"),
        ({"steps": ["quantize", "train", "evaluate"], "train": {"seed": 3}}, "a trial's seed comes from"),
        ({"steps": ["quantize", "train", "evaluate"], "train": {"lr": 3}}, "learning_rate"),
        ({"steps": ["quantize", "train", "evaluate"], "finetune": {}}, "settings of a step that is not there"),
        ({"steps": ["quantize", "train", "evaluate"], "control": True}, "control needs a step finetune"),
        ({"steps": ["train", "quantize", "train", "evaluate"]}, "twice"),
    ],
)
def test_steps_that_make_no_sense_are_refused_before_any_work(model, data, pipeline, said):
    with pytest.raises(BadInput, match=said):
        search(model, data, [], pipeline=pipeline)


def test_what_is_not_known_after_an_epoch_cannot_stop_a_trial(model, data):
    with pytest.raises(BadInput, match="not known after an epoch"):
        search(
            model, data, [], runners={"basic_evaluation": {}, "latency": {}}, minimize="latency", maximize=(),
            pipeline={"steps": ["quantize", "train", "evaluate"], "stop": {}},
        )  # fmt: skip


def test_integer_formats_that_are_given_fixed_stay_fixed(model, data):
    space = pb.Quantize(seed={"default": {"name": "integer", "weight_width": [4, 6], "weight_frac_width": 3}})
    study = search(model, data, ["quantize", "train", "evaluate"], space=space)
    widths = {slots["weight"].width for t in study.front() for slots in formats_of(t.model()).values()}
    assert widths <= {4, 6}
    assert all(isinstance(s["weight"], Integer) for t in study.front() for s in formats_of(t.model()).values())


def test_a_users_function_that_trains_the_model_leaves_the_trials_model_alone(model, data):
    def spoil(trained):
        with torch.no_grad():
            trained[0].weight.zero_()
        return {"score": float(trained[3].weight.abs().sum())}

    study = search(
        model, data, [], evaluate=spoil, maximize="score", minimize=(),
        pipeline={"steps": ["quantize", "train", "evaluate"], "train": QUICK},
    )  # fmt: skip
    assert all(trial.model()[0].weight.abs().sum() > 0 for trial in study.front())


def test_guided_is_refused_where_trials_start_from_scratch(model, data):
    pipeline = {"steps": ["train", "quantize", "evaluate"], "train": QUICK, "weights": "scratch"}
    with pytest.raises(BadInput, match="trials start from scratch"):
        search(model, data, [], strategy="guided", pipeline=pipeline)


def test_trials_that_train_need_rows_to_train_on(model, data):
    with pytest.raises(BadInput, match="need rows to train on"):
        search(model, {"val": data["val"]}, ["quantize", "train", "evaluate"])


def test_what_stops_a_trial_is_what_is_measured(model, data):
    with pytest.raises(BadInput, match="measured on others"):
        search(
            model, data, [], runners={"basic_evaluation": {"num_samples": 10}}, minimize=(),
            pipeline={"steps": ["quantize", "train", "evaluate"], "stop": {}},
        )  # fmt: skip


def test_a_teacher_teaches(model, data):
    steps = ["train", "quantize", "finetune", "evaluate"]
    plain = {"steps": steps, "train": QUICK, "finetune": QUICK}
    taught = {**plain, "finetune": {**QUICK, "teacher": {"teacher_weight": 0.9, "teacher_temperature": 4.0}}}
    alone, together = (search(model, data, [], pipeline=pipeline) for pipeline in (plain, taught))
    assert alone.counts()["complete"] == together.counts()["complete"] == len(alone)
    assert [t.metrics["loss"] for t in alone] != [t.metrics["loss"] for t in together]


def test_scales_are_learned_where_there_are_any(model, data):
    learned = {"steps": ["quantize", "train", "evaluate"], "train": {**QUICK, "learned_scales": True}}
    study = search(model, data, [], pipeline=learned)
    assert study.counts()["failed"] == 0
    for layer in ("0", "3"):
        assert formats_of(study.best().model())[layer]["weight"].scale is not None
    x, y = data["val"]
    with torch.no_grad():
        accuracy = (study.best().model()(x).argmax(1) == y).float().mean().item()
    assert accuracy == pytest.approx(study.best().metrics["accuracy"], abs=1e-6)


def test_costs_that_count_zeros_count_those_of_the_trained_weights(model, data):
    """One initial weight that the format makes zero, where weights are drawn anew, changes no cost."""
    given = {
        "space": pb.Quantize(seed={"default": {"name": "integer", "weight_width": 2, "weight_frac_width": [0, 1]}}),
        "runners": {"basic_evaluation": {}, "bops": {"skip_zeros": True}},
        "minimize": "bops",
        "pipeline": {"steps": ["train", "quantize", "evaluate"], "train": QUICK, "weights": "scratch"},
    }
    first = search(model, data, [], **given)
    with torch.no_grad():
        model[0].weight.fill_(1e-9)
    again = search(model, data, [], **given)
    assert [t.metrics["bops"] for t in first] == [t.metrics["bops"] for t in again]
