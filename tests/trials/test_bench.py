"""Nothing leaks from one trial to the next, and nothing reaches the caller."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.errors import BadInput, MetricError, ParetoBitError
from paretobit.spaces import Quantize
from paretobit.spaces.knobs import Config
from paretobit.trials.bench import Bench
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import Runner, RunnerSettings
from paretobit.wanted.metric import Metric


def integer(x, width, frac_width):
    """The fixed-point grid, written from its definition."""
    codes = torch.round(x.double() * 2.0**frac_width).clamp(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    return (codes / 2.0**frac_width).to(x.dtype)


def run_in_order(net, rows, space, indices, **arguments):
    """A search of exactly these configurations, in this order."""
    bound = space.bind(pb.trace(net, rows[0][:1]))
    from paretobit.document import Document
    from paretobit.workflow.assemble import evidence_for, make_runners

    evidence = evidence_for(net, {"val": rows})
    runners = make_runners(None, evidence, arguments.get("evaluate"), {}, Document())
    bench = Bench(bound, runners, 5)
    bench.baseline()
    return [bench.evaluate(bound.tree.at(i)) for i in indices]


def test_a_configuration_gives_the_same_bits_first_in_the_middle_and_last(net, rows, linear_space):
    order = list(range(16))
    random.Random(2).shuffle(order)
    outcomes = run_in_order(net, rows, linear_space, [7, *order, 7, 15, 0, 7])
    by_index = dict(zip(order, outcomes[1:17], strict=True))
    for outcome in (outcomes[0], outcomes[17], outcomes[20]):
        assert outcome == by_index[7]
    assert outcomes[18] == by_index[15]
    assert outcomes[19] == by_index[0]
    assert len({outcome.metrics["loss"] for outcome in by_index.values()}) == 16


def test_a_layer_quantised_in_one_trial_is_float_in_the_next(net, rows, linear_space):
    study = pb.search(net, val=rows, space=linear_space, minimize="loss", runners={"basic_evaluation": {}})
    last = study[15]
    assert set(last.config.values()) == {"float"}
    assert study[14].metrics != last.metrics
    assert last.metrics == study.baseline


def test_the_choice_of_no_format_leaves_the_layer_in_float(net, rows):
    entry = {"name": ["integer", "NA"], "data_in_width": 4, "weight_width": [4, 8]}
    study = pb.search(net, val=rows, space=Quantize(seed={"linear": entry}), minimize="loss")
    floats = [t for t in study if set(t.config.values()) == {"float"}]
    assert [t.number for t in floats] == [len(study) - 1]
    assert floats[0].metrics == study.baseline
    assert len({t.metrics["loss"] for t in study}) > 5


def snapshot(model):
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "types": [type(module) for module in model.modules()],
        "identities": [id(tensor) for tensor in [*model.parameters(), *model.buffers()]],
        "versions": [tensor._version for tensor in [*model.parameters(), *model.buffers()]],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": [set(vars(module)) for module in model.modules()],
    }


def same(a, b):
    return all(torch.equal(a["state"][name], b["state"][name]) for name in a["state"]) and all(
        a[key] == b[key] for key in a if key != "state"
    )


def spoil(model):
    """A measurement with every bad habit: trains, switches modes, writes, replaces."""
    before = sum(float(p.detach().abs().sum()) for p in model.parameters())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = model(torch.rand(32, 6)).square().mean()
    loss.backward()
    optimizer.step()
    for parameter in model.parameters():
        parameter.data.mul_(3)
        parameter.requires_grad_(False)
    with torch.no_grad():
        model(torch.rand(32, 6))
        model.eval()(torch.rand(4, 6))  # caches quantised weights of the spoilt parameters
    model[1].weight = nn.Parameter(torch.zeros_like(model[1].weight))
    model[2].momentum = 0.9
    model.register_forward_hook(lambda *_: torch.zeros(1))
    model.double()
    noise = float(torch.rand(())) + random.random() + float(np.random.rand())
    return {"before": before, "trained": loss.item(), "noise": noise}


def test_the_callers_model_data_and_generators_are_as_they_were(net, rows, linear_space, tmp_path):
    net[1].weight.requires_grad_(False)
    before, x, y = snapshot(net), rows[0].clone(), rows[1].clone()
    assert (x < 0).any()  # an in-place ReLU in front would show
    torch.manual_seed(9)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    threads = torch.get_num_threads()
    grad_enabled = torch.is_grad_enabled()
    for arguments in ({"minimize": "loss"}, {"minimize": "trained", "evaluate": spoil}):
        study = pb.search(net, val=rows, test=rows, space=linear_space, strategy="tpe", n_trials=8, **arguments)
        study.best().model()(rows[0].clone())
    pb.search(net, val=rows, space=linear_space, minimize="loss", n_trials=3, out=tmp_path / "run")
    assert same(snapshot(net), before)
    assert torch.equal(rows[0], x)
    assert torch.equal(rows[1], y)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1] == generators[1]).all()
    assert random.getstate() == generators[2]
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled() == grad_enabled


def test_generators_and_threads_are_put_back_when_the_search_breaks(net, rows, linear_space):
    torch.manual_seed(9)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pb.search(net, val=rows, space=linear_space, minimize="loss", on_trial=stop)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_what_a_users_function_does_to_the_model_stays_in_its_trial(net, rows, linear_space):
    order = [7, 3, 7, 15, 0, 3, 15]
    forward = run_in_order(net, rows, linear_space, order, evaluate=spoil)
    assert [outcome.error for outcome in forward] == [None] * 7
    backward = run_in_order(net, rows, linear_space, order[::-1], evaluate=spoil)
    expected = {i: outcome.metrics for i, outcome in zip(order, forward, strict=True)}
    for i, outcome in zip(order[::-1], backward, strict=True):
        assert outcome.metrics == expected[i]
    assert forward[0] == forward[2]
    assert len({outcome.metrics["before"] for outcome in forward}) == 1
    assert len({outcome.metrics["noise"] for outcome in forward}) == 4  # each configuration its own


def test_random_numbers_of_a_users_function_depend_on_seed_and_configuration_alone(net, rows, linear_space):
    def run(seed, order):
        strategy = {"name": "brute_force", "order": order}
        study = pb.search(
            net,
            evaluate=lambda model: {"noise": torch.rand(()) + random.random()},
            example=rows[0][:1],
            space=linear_space,
            minimize="noise",
            strategy=strategy,
            seed=seed,
        )
        return {t.config: t.metrics["noise"] for t in study}

    assert run(1, "nested") == run(1, "shuffled")
    assert run(1, "nested") != run(2, "nested")


def test_the_users_function_gets_the_model_in_evaluation_mode_with_gradients_allowed(net, rows, linear_space):
    seen = []

    def look(model):
        seen.append((any(m.training for m in model.modules()), torch.is_grad_enabled()))
        return {"m": 1.0}

    pb.search(net, evaluate=look, example=rows[0][:1], space=linear_space, minimize="m", n_trials=2)
    assert seen == [(False, True)] * 3


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: None, "evaluate returned no metrics"),
        (dict, "evaluate returned no metrics"),
        (lambda: 0.5, "evaluate returned no metrics"),
        (lambda: {"m": "high"}, "not a metric"),
        (lambda: {"m": torch.zeros(2)}, "not a metric"),
        (lambda: {"m": np.zeros(2)}, "not a metric"),
        (lambda: {"m": 1j}, "not a metric"),
        (lambda: {3: 1.0}, "not a metric"),
        (lambda: {"m": float("nan")}, "'m' is not a number"),
        (lambda: {"other": 1.0}, "did not deliver the metric 'm'"),
        (lambda: [][0], "IndexError"),
    ],
)
def test_a_trial_whose_function_misbehaves_is_recorded_and_the_search_goes_on(net, rows, linear_space, result, message):
    calls = []

    def evaluate(model):
        calls.append(1)
        return result() if len(calls) == 3 else {"m": float(len(calls))}  # the baseline is the first

    study = pb.search(net, evaluate=evaluate, example=rows[0][:1], space=linear_space, minimize="m", n_trials=4)
    assert [t.state for t in study] == ["complete", "failed", "complete", "complete"]
    assert message in study[1].error
    assert "Traceback" in study[1].error
    assert dict(study[1].metrics) == {}
    assert study.counts()["failed"] == 1
    assert study[1].config not in [t.config for t in study.front()]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (None, BadInput),
        ({"m": torch.zeros(2)}, BadInput),
        ({"m": float("nan")}, MetricError),
        ({"other": 1.0}, BadInput),
    ],
)
def test_a_function_that_fails_on_the_baseline_ends_the_search_at_once(net, rows, linear_space, result, error):
    with pytest.raises(error):
        pb.search(net, evaluate=lambda model: result, example=rows[0][:1], space=linear_space, minimize="m", n_trials=4)


@pytest.mark.parametrize("value", [3, True, np.float32(0.5), np.int64(4), torch.tensor(2.5), torch.ones(1, 1)])
def test_numbers_of_every_make_are_metrics(net, rows, linear_space, value):
    study = pb.search(
        net, evaluate=lambda m: {"m": value}, example=rows[0][:1], space=linear_space, minimize="m", n_trials=1
    )
    assert study[0].metrics["m"] == float(value)
    assert type(study[0].metrics["m"]) is float


class Forgetful(Runner):
    metrics = (Metric("kept", "minimize", "-"), Metric("lost", "minimize", "-"))

    def measure(self, candidate):
        return {"kept": 1.0}


def test_a_metric_that_a_runner_promised_and_did_not_deliver_is_an_error(net, rows, linear_space):
    graph = pb.trace(net, rows[0][:1])
    bound = linear_space.bind(graph)
    bench = Bench(bound, [Forgetful(Evidence(graph, {}), RunnerSettings())], 0)
    with pytest.raises(MetricError, match="Forgetful did not deliver the metric 'lost'"):
        bench.baseline()
    outcome = bench.evaluate(bound.tree.at(0))
    assert outcome.state == "failed"
    assert "did not deliver" in outcome.error


def test_interrupts_pass_through(net, rows, linear_space):
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"m": 1.0}

    with pytest.raises(KeyboardInterrupt):
        pb.search(net, evaluate=evaluate, example=rows[0][:1], space=linear_space, minimize="m")
    assert len(calls) == 3


def by_hand(net, x, weights):
    """The quantised model in plain torch."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        h = F.linear(F.relu(x), integer(net[1].weight, *weights[0]), net[1].bias)
        h = F.batch_norm(h, net[2].running_mean, net[2].running_var, net[2].weight, net[2].bias, False, 0.1, net[2].eps)
        return F.linear(F.relu(h), integer(net[4].weight, *weights[1]))


@pytest.mark.parametrize("batch_size", [None, 1, 7, 200, 999])
def test_accuracy_and_loss_are_those_of_the_quantised_model_in_plain_torch(net, rows, batch_size):
    widths = [(3, 1), (6, 3), (8, 7), (4, -1)]
    space = Quantize(seed={"linear": {"weight": [{"width": w, "frac_width": f} for w, f in widths]}})
    settings = {} if batch_size is None else {"batch_size": batch_size}
    study = pb.search(net, val=rows, space=space, minimize="loss", runners={"basic_evaluation": settings})
    assert len(study) == 16
    for trial in study:
        logits = by_hand(net, rows[0], [widths[i] for i in divmod(trial.number, 4)])
        assert trial.metrics["accuracy"] == (logits.argmax(1) == rows[1]).double().mean().item()
        expected = F.cross_entropy(logits.double(), rows[1]).item()
        assert trial.metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_trials_model_gives_the_trials_metrics(net, rows, linear_space):
    study = pb.search(net, val=rows, space=linear_space, maximize="accuracy", minimize="loss")
    for trial in study:
        model = trial.model()
        with torch.no_grad():
            logits = model(rows[0].clone())
        assert (logits.argmax(1) == rows[1]).double().mean().item() == trial.metrics["accuracy"]
        assert not any(module.training for module in model.modules())


def test_trials_broken_by_a_cheap_constraint_never_run_the_model(net, rows, linear_space):
    calls = []

    def evaluate(model):
        calls.append(1)
        return {"m": float(len(calls))}

    everything = pb.search(net, val=rows, space=linear_space, minimize="model_size")
    sizes = [t.metrics["model_size"] for t in everything]
    bound = sorted(sizes)[7]
    study = pb.search(
        net,
        evaluate=evaluate,
        example=rows[0][:1],
        space=linear_space,
        minimize="m",
        subject_to=f"model_size <= {bound}",
    )
    feasible = [size <= bound for size in sizes]
    assert [t.state == "complete" for t in study] == feasible
    assert len(calls) == 1 + sum(feasible) + 1, "the baseline, the trials, and one of them once more"
    assert all(t.state == "infeasible" and "m" not in t.metrics for t in study if not feasible[t.number])
    assert all(t.metrics["model_size"] == sizes[t.number] for t in study)
    assert study.counts()["infeasible"] == feasible.count(False)


def test_a_constraint_on_what_the_model_gives_keeps_the_metrics_of_what_breaks_it(net, rows, linear_space):
    everything = pb.search(net, val=rows, space=linear_space, minimize="bitops")
    losses = [t.metrics["loss"] for t in everything]
    bound = sorted(losses)[5]
    study = pb.search(net, val=rows, space=linear_space, minimize="bitops", subject_to=f"loss <= {bound!r}")
    assert [t.state for t in study] == ["complete" if loss <= bound else "infeasible" for loss in losses]
    assert [t.metrics["loss"] for t in study] == losses
    assert all(t.metrics["loss"] <= bound for t in study.front())


def test_a_constraint_relative_to_the_baseline_is_held_against_the_float_model(net, rows, linear_space):
    study = pb.search(net, val=rows, space=linear_space, minimize="model_size", subject_to="accuracy >= baseline")
    for t in study:
        assert (t.state == "complete") == (t.metrics["accuracy"] >= study.baseline["accuracy"])
    assert study[15].state == "complete"  # full precision is the baseline


def test_a_resumed_study_equals_an_uninterrupted_one(net, rows, linear_space, tmp_path):
    def run(n, **more):
        return pb.search(
            net, val=rows, space=linear_space, maximize="accuracy", minimize="bitops", strategy="tpe",
            n_trials=n, seed=2, **more,
        )  # fmt: skip

    run(9, out=tmp_path / "r")
    resumed, whole = run(25, out=tmp_path / "r", resume=True), run(25)
    assert [(t.config, t.metrics, t.state, t.seed) for t in resumed] == [
        (t.config, t.metrics, t.state, t.seed) for t in whole
    ]
    with pytest.raises(ParetoBitError, match="seed is 2, not 3"):
        pb.search(
            net, val=rows, space=linear_space, maximize="accuracy", minimize="bitops", strategy="tpe",
            n_trials=30, seed=3, out=tmp_path / "r", resume=True,
        )  # fmt: skip


def refuse(net, rows, message, space=None, **arguments):
    default = Quantize(seed={"linear": {"weight": [{"width": 3}, "NA"]}})
    arguments = {"val": rows, "maximize": "accuracy", **arguments}
    with pytest.raises(BadInput, match=message) as refused:
        pb.search(net, space=space or default, **arguments)
    return refused.value


@pytest.mark.parametrize("bad", [3, -1])
def test_labels_out_of_range_are_refused(net, rows, bad):
    y = rows[1].clone()
    y[5] = bad
    error = refuse(net, (rows[0], y), "labels outside the model's classes")
    assert "0 to 2" in str(error)


@pytest.mark.parametrize("change", [torch.Tensor.float, lambda y: y[:, None], lambda y: F.one_hot(y, 3)])
def test_labels_that_are_not_one_integer_a_row_are_refused(net, rows, change):
    refuse(net, (rows[0], change(rows[1])), "needs class labels")


def test_labels_of_smaller_integer_types_will_do(net, rows, linear_space):
    def run(y):
        return pb.search(net, val=(rows[0], y), space=linear_space, minimize="loss", n_trials=2)[0].metrics

    assert run(rows[1].to(torch.uint8)) == run(rows[1].numpy().astype(np.int32)) == run(rows[1])


def test_a_model_that_is_no_classifier_is_refused(net, rows):
    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            return self.layer(x).reshape(-1, 2, 2)

    error = refuse(Maps(), rows, "needs a classifier")
    assert "(1, 2, 2)" in str(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runners": {"basic_evaluatoin": {}}}, "unknown runner.*did you mean 'basic_evaluation'"),
        ({"runners": {"basic_evaluation": {"splt": "val"}}}, "unknown key.*did you mean 'split'"),
        ({"runners": {"basic_evaluation": {"split": "train"}}}, "no such split"),
        ({"runners": {"latency": {}}}, "add 'basic_evaluation'"),
        ({"maximize": "acuracy"}, "did you mean 'accuracy'"),
        ({"maximize": (), "minimize": "latency"}, "add 'latency'"),
        ({"subject_to": "acuracy > 0"}, "did you mean 'accuracy'"),
        ({"strategy": "brute_froce"}, "did you mean 'brute_force'"),
        ({"strategy": {"name": "optuna", "sampler": "tpee"}}, "did you mean 'tpe'"),
        ({"strategy": {"name": "brute_force", "oder": "nested"}}, "did you mean 'order'"),
        ({"maximize": ()}, "no objective"),
        ({"val": None}, "nothing to measure with"),
    ],
)
def test_a_name_that_is_unknown_is_refused_with_the_closest_match(net, rows, arguments, message):
    refuse(net, rows, message, **arguments)


def test_the_same_configuration_has_the_same_seed_wherever_it_stands(net, rows, linear_space):
    bench = Bench(linear_space.bind(pb.trace(net, rows[0][:1])), [], 1)
    config = Config({"a": 1, "b": "x"})
    assert bench.seed_of(config) == bench.seed_of(Config.from_json(config.to_json()))
    assert bench.seed_of(config) != bench.seed_of(Config({"a": 2, "b": "x"}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_of_one_layer_is_searched_in_its_own_dtype(dtype):
    torch.manual_seed(0)
    model = nn.Linear(8, 2).to(dtype)
    x = torch.randn(50, 8, dtype=torch.float64)
    study = pb.search(
        model,
        val=(x, (x[:, 0] > 0).long()),
        space=pb.Quantize(by="type", seed={"linear": {"weight_width": [2, 8]}}),
        maximize="accuracy",
        minimize="bitops",
    )
    assert [trial.metrics["total_bitops"] for trial in study.trials] == [16 * 32 * 2, 16 * 32 * 8]
    assert type(model) is nn.Linear
    assert next(study.trials[0].model().parameters()).dtype == dtype
