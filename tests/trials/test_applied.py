"""A trial leaves nothing in the model, whatever the model writes while it runs."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import paretobit as pb
from paretobit.training.evaluate import evaluate

ROWS = 40
X = torch.randint(0, 9, (ROWS, 3), generator=torch.Generator().manual_seed(0))
Y = X.sum(1) % 4
CHOICES = ["NA", "integer(width=4, frac_width=2)", "mxfp4"]
SPACE = pb.Quantize(by="type", seed={"linear": {"weight": CHOICES}})


class Averages:
    """What some keep beside a model: no module, no buffer."""

    def __init__(self):
        self.seen, self.by_name = [], {"x": {"mean": torch.zeros(6)}}


class Keeps(nn.Module):
    """Adds to what it is given what it keeps, and keeps something of it."""

    def __init__(self, habits, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.habits = habits
        self.embed = nn.Embedding(9, 2, max_norm=0.5 if "max_norm" in habits else None)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 4)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("unsaved", torch.zeros(6), persistent=False)
        self.average = nn.Parameter(torch.zeros(6))
        self.calls, self.log, self.table = 0, [], {"last": 0.0}
        self.plain, self.averages, self.drawn = torch.zeros(6), Averages(), random.Random(1)
        self.numbers = self.plain.numpy().copy()

    def forward(self, x):
        x = self.embed(x).flatten(1)
        now = x.mean(0).detach()
        for habit in self.habits:
            x = getattr(self, "_" + habit)(x, now)
        return self.last(torch.relu(self.first(x)))

    def _max_norm(self, x, now):
        return x

    def _buffer(self, x, now):
        self.mean.mul_(0.9).add_(0.1 * now)
        return x - 3 * self.mean

    def _replaced(self, x, now):
        self.unsaved = self.unsaved * 0.5 + now
        return x + self.unsaved

    def _data(self, x, now):
        self.average.data.mul_(0.9).add_(now)
        return x * (1 + self.average)

    def _numpy(self, x, now):
        self.numbers += now.numpy()
        return x + torch.from_numpy(self.numbers)

    def _counter(self, x, now):
        self.calls += 1
        return x * (1 + 0.1 * self.calls)

    def _list(self, x, now):
        self.log.append(float(now.mean()))
        return x + sum(self.log)

    def _dict(self, x, now):
        self.table["last"] = self.table["last"] + 1
        return x * (1 + 0.1 * self.table["last"])

    def _attribute(self, x, now):
        self.plain.add_(now)
        return x + self.plain

    def _object(self, x, now):
        self.averages.seen.append(1)
        self.averages.by_name["x"]["mean"].add_(now)
        return x + self.averages.by_name["x"]["mean"] * len(self.averages.seen)

    def _generator(self, x, now):
        return x + self.drawn.random()

    def _mode(self, x, now):
        changed = x * (2 if self.first.training else 1)
        self.first.train()
        return changed

    def _hook(self, x, now):
        self.first.register_forward_hook(lambda module, args, output: output + 0.1)
        return x

    def _weight(self, x, now):
        self.first.weight.data.mul_(0.9)
        return x

    def _new_weight(self, x, now):
        self.last.weight = nn.Parameter(self.last.weight.detach() * 1.1)
        return x


HABITS = [name[1:] for name in vars(Keeps) if name.startswith("_") and not name.startswith("__")]


def everything(model):
    """All that can be seen of a model, as values."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), "plain": model.plain}
    tensors["averages"] = model.averages.by_name["x"]["mean"]
    own = (model.calls, list(model.log), dict(model.table), list(model.averages.seen), model.drawn.getstate())
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    return {name: (id(t), t.tolist()) for name, t in tensors.items()}, own, modules, flags, model.numbers.tolist()


def noted(study):
    """The notes of a search but for what stays in float."""
    said = study.facts["coverage"]["said"]
    assert study.facts["notes"][: len(said)] == said
    return study.facts["notes"][len(said) :]


def of_a_copy(trial):
    """The delivered model, alone, in batches as a search has them."""
    result = evaluate(trial.model(), X, Y, ROWS)
    return {"accuracy": result.accuracy, "loss": result.loss}


@settings(max_examples=15, deadline=None)
@given(
    habits=st.lists(st.sampled_from(HABITS), min_size=1, max_size=3, unique=True),
    order=st.sampled_from(["nested", "shuffled"]),
    training=st.booleans(),
    seed=st.integers(0, 100),
)
def test_every_trial_measures_the_model_that_is_delivered_and_the_given_one_is_untouched(habits, order, training, seed):
    model = Keeps(habits, seed).train(training)
    before = everything(model)
    study = pb.search(
        model,
        val=(X, Y),
        space=SPACE,
        minimize=["loss", "bitops"],
        runners={"basic_evaluation": {"batch_size": ROWS}, "basic_computation": {}},
        strategy={"name": "brute_force", "order": order},
        seed=seed,
    )
    assert everything(model) == before
    assert len(study) == 9
    for trial in study.trials:
        found = of_a_copy(trial)
        assert {name: trial.metrics[name] for name in found} == found, habits
    assert noted(study) == []
    assert study.facts["repeated"]["differs"] == {}


@pytest.mark.parametrize("strategy", ["guided", "tpe"])
def test_scores_and_probes_leave_the_given_model_alone(strategy):
    for habit in HABITS:
        model = Keeps([habit], 0).eval()
        before = everything(model)
        pb.search(model, val=(X, Y), space=SPACE, minimize=["loss", "bitops"], strategy=strategy, n_trials=3)
        assert everything(model) == before, habit


def test_every_runner_is_given_the_model_as_the_configuration_has_it():
    seen = []

    def measured(model):
        seen.append(everything(model)[1:3])
        model(X)
        return {"m": 0.0}

    pb.search(
        Keeps(["counter", "list", "mode", "hook"], 0),
        val=(X, Y),
        space=SPACE,
        evaluate=measured,
        runners={"latency": {"repeats": 2}, "basic_computation": {}},
        minimize=["m", "bitops"],
    )
    assert len(seen) == 11
    assert all(one == seen[0] for one in seen)


COUNT = [0]


class Elsewhere(nn.Module):
    """Counts where nobody can see it."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Embedding(9, 2), nn.Linear(6, 4)

    def forward(self, x):
        COUNT[0] += 1
        return self.last(self.embed(x).flatten(1)) * (1 + COUNT[0] / 1000)


def test_what_no_restoring_reaches_is_found_by_one_repeated_trial(tmp_path):
    def search(**more):
        return pb.search(model, val=(X, Y), space=one, minimize=["loss", "bitops"], **more)

    model, calls = Elsewhere(), COUNT[0]
    one = pb.Quantize(by="type", seed={"linear": {"weight": [*CHOICES, "binary"]}})
    study = search(out=tmp_path / "run")
    (note,) = noted(study)
    (was, now) = study.facts["repeated"]["differs"]["loss"]
    assert was == study[0].metrics["loss"] != now
    assert f"trial 0 gives something else when it is repeated after the search: loss is {now}, and was {was}" in note
    calls, first = COUNT[0], COUNT[0] - calls
    again = search(out=tmp_path / "run", resume=True)
    assert again.facts["notes"] == study.facts["notes"]
    measured = 1 + len(study) + 1  # the baseline, the trials, and one of them again
    assert COUNT[0] - calls == first - measured, "nothing was measured again"


def test_a_few_trials_are_not_worth_repeating_one(monkeypatch):
    study = pb.search(Elsewhere(), val=(X, Y), space=SPACE, minimize=["loss", "bitops"])
    assert "repeated" not in study.facts
    monkeypatch.setattr("paretobit.session.session._FEW_TRIALS", 3)
    assert "repeated" in pb.search(Elsewhere(), val=(X, Y), space=SPACE, minimize=["loss", "bitops"]).facts


def test_times_are_not_expected_to_repeat(net, rows, linear_space):
    study = pb.search(
        net, val=rows, space=linear_space, runners={"latency": {"repeats": 1}}, minimize="latency", n_trials=5
    )
    assert study.facts["repeated"] == {"trial": 0, "differs": {}}
    assert noted(study) == []
