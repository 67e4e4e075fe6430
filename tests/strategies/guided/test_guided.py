"""`guided` finds better fronts than chance, keeps every budget, and is the same machine every time."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.strategies import STRATEGIES
from paretobit.wanted.hypervolume import hypervolume

WIDTHS = {
    "data_in": [f"scaled_integer(width={w}, calibration='mse')" for w in (3, 4, 6, 8)],
    "weight": [f"scaled_integer(width={w}, per='channel')" for w in (2, 3, 4, 6, 8)],
}
SPACE = pb.Quantize(seed={"linear": WIDTHS})
SMALL = pb.Quantize(seed={"linear": {"weight": [*WIDTHS["weight"][:2], "NA"]}})


@pytest.fixture(scope="module")
def digits():
    """A trained network, rows it was trained on and others."""
    rows = load_digits()
    x = torch.tensor(rows.data, dtype=torch.float32) / 16
    y = torch.tensor(rows.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, val = order[:1000], order[1000:1500]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)
        )
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(60):
            loss = F.cross_entropy(net(x[train]), y[train])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval(), (x[train], y[train]), (x[val], y[val])


@pytest.fixture
def search(digits):
    net, train, val = digits

    def run(space=SPACE, strategy="guided", n_trials=30, seed=0, **more):
        given = {"minimize": ["loss", "bitops"], "train": train, "calibration": 256}
        if "evaluate" not in more:
            given["val"] = val
        return pb.search(net, space=space, strategy=strategy, n_trials=n_trials, seed=seed, **{**given, **more})

    return run


@pytest.fixture(scope="module")
def whole(digits):
    """What `search()` finds, for all that compare with it."""
    net, train, val = digits
    given = {"minimize": ["loss", "bitops"], "train": train, "calibration": 256, "val": val}
    return pb.search(net, space=SPACE, strategy="guided", n_trials=30, seed=0, **given)


def configs(study):
    return [trial.config for trial in study.trials]


def volume(study):
    """Below a loss of ln 10, of the logarithm of BitOPs between what 6 and 64 bits a product cost."""
    macs = 64 * 32 + 32 * 16 + 16 * 10
    points = [
        (t.metrics["loss"], (math.log(t.metrics["total_bitops"] / macs) - math.log(6)) / math.log(64 / 6))
        for t in study.trials
    ]
    return hypervolume(points, (math.log(10), 1.0)) / math.log(10)


def test_its_fronts_are_better_than_those_of_chance(search, whole):
    guided = [volume(whole), *(volume(search(seed=seed)) for seed in (1, 2))]
    chance = [volume(search(strategy="random", seed=seed)) for seed in range(3)]
    assert all(ours > theirs + 0.02 for ours, theirs in zip(guided, chance, strict=True)), (guided, chance)


def test_the_same_seed_proposes_the_same_and_says_what_it_predicts(search, whole):
    one, other = whole, search()
    assert configs(one) == configs(other)
    predicted = one.facts["predicted"]["values"]
    assert len(predicted) >= 8
    assert predicted == other.facts["predicted"]["values"]
    assert all(math.isfinite(value) for value in predicted.values())


@pytest.mark.parametrize("kept", [3, 17])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(search, whole, tmp_path, kept):
    def stop(progress):
        if len(seen) + 1 >= kept:
            raise KeyboardInterrupt
        seen.append(progress)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        search(out=tmp_path / "run", on_trial=stop)
    resumed = search(out=tmp_path / "run", resume=True)
    assert configs(resumed) == configs(whole)
    assert [t.metrics["loss"] for t in resumed.trials] == [t.metrics["loss"] for t in whole.trials]


def test_a_longer_search_begins_with_the_shorter_one(search, whole):
    assert configs(search(n_trials=12)) == configs(whole)[:12]


def test_no_budget_and_no_cheap_constraint_is_ever_exceeded(search, digits):
    macs = 64 * 32 + 32 * 16 + 16 * 10
    bounds = [f"bitops <= {20 * macs}", f"bitops >= {9 * macs}", "average_bitwidth <= 5"]
    runners = {"basic_evaluation": {}, "basic_computation": {}, "average_bitwidth": {}}
    study = search(n_trials=100, subject_to=bounds, runners=runners)
    assert len(study.trials) == 100
    assert {trial.state for trial in study.trials} == {"complete"}
    for trial in study.trials:
        assert 9 * macs <= trial.metrics["total_bitops"] <= 20 * macs
    assert len(set(configs(study))) == 100


def test_the_least_cost_of_an_accuracy(search):
    asked = {"minimize": "bitops", "subject_to": "accuracy >= baseline - 0.01", "n_trials": 40}
    least = {"guided": [], "random": []}
    for strategy, found in least.items():
        for seed in range(3):
            study = search(**asked, strategy=strategy, seed=seed)
            best = study.best("min bitops s.t. accuracy >= baseline - 0.01")
            assert best.metrics["accuracy"] >= study.baseline["accuracy"] - 0.01
            found.append(best.metrics["total_bitops"])
    assert sum(least["guided"]) < 0.9 * sum(least["random"]), least


def test_the_best_accuracy_of_a_cost(search):
    macs = 64 * 32 + 32 * 16 + 16 * 10
    budget = {"maximize": "accuracy", "minimize": (), "subject_to": f"bitops <= {12 * macs}", "n_trials": 30}
    found = {name: search(strategy=name, **budget) for name in ("guided", "random")}
    assert {trial.state for trial in found["guided"].trials} == {"complete"}
    accuracy = {name: study.best("max accuracy").metrics["accuracy"] for name, study in found.items()}
    assert accuracy["guided"] > accuracy["random"]


def test_three_objectives(search):
    runners = {"basic_evaluation": {}, "basic_computation": {}, "average_bitwidth": {}}
    given = {"maximize": "accuracy", "minimize": ["bitops", "average_bitwidth"], "runners": runners}
    study = search(**given, n_trials=40)
    assert len(set(configs(study))) == 40
    assert len(study.front()) >= 8


def test_a_cost_that_is_to_be_large(search):
    runners = {"basic_evaluation": {}, "average_bitwidth": {}}
    given = {"maximize": "memory_density", "minimize": "loss", "runners": runners}

    def volume_of(study):
        points = [(t.metrics["loss"], -t.metrics["memory_density"]) for t in study.trials]
        return hypervolume(points, (math.log(10), -4.0))

    guided, chance = search(**given), search(**given, strategy="random")
    assert volume_of(guided) > volume_of(chance)
    densities = [t.metrics["memory_density"] for t in guided.front()]
    assert max(densities) / min(densities) > 2
    bounded = search(**given, subject_to="memory_density >= 8", n_trials=20)
    assert all(t.metrics["memory_density"] >= 8 for t in bounded.trials)
    assert {t.state for t in bounded.trials} == {"complete"}


def test_widths_are_an_outer_loop(search):
    space = pb.Quantize(seed={"linear": {"weight": WIDTHS["weight"]}}) * pb.ChannelMultiplier(
        by="group", seed={"0": [0.5, 1]}
    )
    study = search(space=space, n_trials=30)
    assert {config["0.multiplier"] for config in configs(study)} == {0.5, 1}
    assert len(set(configs(study))) == 30
    assert {trial.state for trial in study.trials} == {"complete"}


def test_widths_alone_are_searched(search):
    space = pb.ChannelMultiplier(by="group", seed={"0": [0.5, 1, 2], "3": [0.5, 1, 2]})
    study = search(space=space, n_trials=9)
    assert len(set(configs(study))) == 9


def test_sparsity_beside_formats_and_corrections(search):
    space = pb.Quantize(seed={"linear": {"weight": WIDTHS["weight"]}}) * pb.Correct()
    space = space * pb.Prune(by="type", seed={"linear": {"sparsity": [0.0, 0.5, 0.8]}})
    runners = {"basic_evaluation": {}, "stored_bytes": {}}
    study = search(space=space, minimize=["loss", "stored_bytes"], runners=runners, n_trials=40)
    used = configs(study)
    assert len(set(used)) == 40
    assert {config["correction"] for config in used} == {"none", "batch_norm"}
    assert {config["3.sparsity"] for config in used} == {0.0, 0.5, 0.8}


def test_sparsity_alone(search):
    space = pb.Prune(by="type", seed={"linear": {"sparsity": [0.0, 0.3, 0.6, 0.9]}})
    runners = {"basic_evaluation": {}, "stored_bytes": {}}
    study = search(space=space, minimize=["loss", "stored_bytes"], runners=runners, n_trials=20)
    assert len(set(configs(study))) == 20
    assert "no gradient" not in " ".join(study.facts.get("notes", []))


def accuracy_of(rows):
    x, y = rows

    def evaluate(model):
        with torch.no_grad():
            output = model(x.clone())
        return {"score": float((output.argmax(1) == y).float().mean())}

    return evaluate


def test_a_function_of_the_users_is_probed_where_there_are_no_rows(search, digits):
    _, _, val = digits
    more = {"train": None, "calibration": 0, "example": val[0][:1], "maximize": "score", "minimize": "bitops"}
    study = search(evaluate=accuracy_of(val), **more, n_trials=40)
    by_chance = search(evaluate=accuracy_of(val), **more, n_trials=40, strategy="random")
    assert len(set(configs(study))) == 40
    assert any("one group at a time is measured" in note for note in study.facts["notes"])

    def reached(study):
        points = [(-t.metrics["score"], math.log(t.metrics["total_bitops"])) for t in study.trials]
        return hypervolume(points, (0.0, math.log(64 * 2720)))

    assert reached(study) > reached(by_chance)


def test_a_function_and_a_loss_of_the_users_with_batches_to_calibrate_on(search, digits):
    net, train, val = digits
    seen = []

    def loss(output, batch):
        seen.append(len(batch))
        return F.cross_entropy(output, net(batch).argmax(1))

    more = {"train": None, "calibration": [train[0][:64], train[0][64:100]], "loss": loss}
    study = search(evaluate=accuracy_of(val), **more, maximize="score", minimize="bitops", n_trials=30)
    assert sum(seen) >= 100
    assert study.facts["predicted"]["values"]
    best = max(t.metrics["score"] for t in study.trials)
    assert best >= study.baseline["score"] - 0.02


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"minimize": "loss"}, "guided needs a cost that is known without running the model"),
        ({"minimize": ["bitops"]}, "guided needs a metric that is measured"),
    ],
)
def test_what_it_cannot_answer_is_refused_before_any_trial(search, wanted, message):
    with pytest.raises(BadInput, match=message) as error:
        search(**wanted)
    assert "allowed" in str(error.value)


def test_a_small_space_is_exhausted_once(search):
    study = search(space=SMALL, n_trials=60)
    assert len(study.trials) == len(set(configs(study))) == 27
    corrected = search(space=pb.Quantize(seed={"linear": {"weight": WIDTHS["weight"][:2]}}) * pb.Correct(), n_trials=60)
    assert len(corrected.trials) == len(set(configs(corrected))) == 16


@pytest.mark.parametrize("bound", ["bitops <= 1", "bitops >= 1e12"])
def test_constraints_that_nothing_meets_end_the_search(search, bound):
    study = search(subject_to=bound, n_trials=10)
    assert len(study.trials) <= 10
    assert not [trial for trial in study.trials if trial.state == "complete"]


def test_several_workers_measure_each_configuration_once(search):
    study = search(n_trials=20, workers=2)
    assert len(set(configs(study))) == 20
    assert {trial.state for trial in study.trials} == {"complete"}


def test_an_option_that_is_not_finite_is_left_out_and_the_search_goes_on(search, monkeypatch):
    whole = Integer.quantize

    def broken(self, x):
        return torch.full_like(x, math.nan) if self.width == 7 else whole(self, x)

    monkeypatch.setattr(Integer, "quantize", broken)
    seed = {"linear": {"weight": [f"integer(width={w}, frac_width={w - 2})" for w in (3, 4, 6, 7, 8)]}}
    study = search(space=pb.Quantize(seed=seed), n_trials=30)
    assert len(study.trials) == 30
    first = study.trials[:20]
    assert all(trial.state == "complete" for trial in first)
    assert not any("width=7" in str(value) for trial in first for value in trial.config.values())


def test_trials_of_another_study_are_learnt_from(search, tmp_path):
    search(strategy="random", n_trials=10, out=tmp_path / "before")
    study = search(warm_start=tmp_path / "before", n_trials=30)
    assert len(set(configs(study))) == len(study.trials) == 10 + 30


def test_unknown_settings_and_tables_are_refused(search):
    with pytest.raises(BadInput, match="table"):
        search(strategy={"name": "guided", "table": "kl"})
    with pytest.raises(BadInput):
        search(strategy={"name": "guided", "tables": ["hessian"]})
    assert "guided" in STRATEGIES


@pytest.mark.parametrize("table", ["diagonal", "directional", "kl"])
def test_one_table_can_be_asked_for(search, table):
    study = search(strategy={"name": "guided", "tables": [table]}, n_trials=12)
    assert len(set(configs(study))) == 12
    assert [name.split()[0] for name in study.facts["scores"]].count(table) >= 1


@pytest.mark.slow
def test_impossible_constraints_end_the_search_of_a_huge_space_too(digits):
    _, (x, y), _ = digits
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 8), *(nn.Linear(8, 8) for _ in range(7)), nn.Linear(8, 10)).eval()
    widths = {"data_in_width": list(range(2, 12)), "weight_width": list(range(2, 12))}
    space = pb.Quantize(seed={"linear": widths})
    more = {"minimize": ["loss", "bitops"], "subject_to": "bitops <= 1", "calibration": 64, "n_trials": 5}
    study = pb.search(net, space=space, val=(x, y), strategy="guided", **more)
    assert len(study.trials) == 0
