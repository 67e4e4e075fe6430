"""The outer loop of `guided`: which choices of the knobs that change shapes become regions."""

import statistics

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.spaces.knobs import Knob, Tree
from paretobit.strategies.guided.outer import choices
from paretobit.strategies.guided.strategy import GuidedSettings


@pytest.fixture(scope="module")
def digits_net():
    """A small trained network with rows to calibrate and to validate on."""
    rows = load_digits()
    x, y = torch.tensor(rows.data, dtype=torch.float32) / 16, torch.tensor(rows.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(40):
            optimizer.zero_grad()
            F.cross_entropy(net(x[:1000]), y[:1000]).backward()
            optimizer.step()
    return net.eval(), (x[:1000], y[:1000]), (x[1000:1400], y[1000:1400])


WIDE = Tree(tuple(Knob.of(name, list(range(16))) for name in "ab"))


def distance(config):
    return (config["a"] - 11) ** 2 + (config["b"] - 3) ** 2


def smallest(sampler, seed, number=30):
    seen = []
    found = choices(WIDE, number, sampler, seed, lambda k: distance(seen[k]))
    for config in found:
        seen.append(config)  # noqa: PERF402 (what was chosen is looked at before the next choice)
    assert len(set(seen)) == len(seen) == number
    return min(map(distance, seen))


def test_few_choices_are_all_taken():
    small = Tree((Knob.of("a", [1, 2]), Knob.of("b", [1, 2, 3])))
    for sampler in ("random", "tpe"):
        assert len(set(choices(small, 8, sampler, 0, lambda k: 0.0))) == 6


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "qmc"])
def test_the_seed_decides_the_choices(sampler):
    first, again, other = (
        tuple(choices(WIDE, 5, sampler, seed, lambda k: float(k))) for seed in (1, 1, 2)
    )  # fmt: skip
    assert first == again
    assert first != other


def test_a_sampler_that_is_told_what_became_of_its_choices_finds_better_ones_than_chance():
    told, drawn = ([smallest(s, seed) for seed in range(8)] for s in ("tpe", "random"))
    assert statistics.mean(told) < statistics.mean(drawn)


def test_guided_asks_a_sampler_for_its_widths(digits_net):
    net, train, val = digits_net
    widths = pb.ChannelMultiplier(by="group", seed={key: [0.25, 0.5, 0.75, 1] for key in ("0", "2")})
    space = pb.Quantize(seed={"linear": {"weight_width": [3, 6], "name": "scaled_integer"}}) * widths
    runs = [
        pb.search(
            net, space=space, train=train, val=val, minimize=["loss", "bitops"], n_trials=20, seed=3,
            strategy={"name": "guided", "outer": "tpe", "regions": 4}, calibration=128,
        )
        for _ in range(2)
    ]  # fmt: skip
    first, again = ([t.config for t in study] for study in runs)
    assert first == again
    shapes = {tuple(v for k, v in config.items() if k.endswith("multiplier")) for config in first}
    assert len(shapes) >= 4
    assert runs[0].counts()["failed"] == 0


def test_an_unknown_sampler_is_refused():
    with pytest.raises(BadInput, match="tpe"):
        GuidedSettings(outer="tpee")
