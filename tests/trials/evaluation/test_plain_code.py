"""Code that may do something else in another trial than when it was traced is not taken for plain."""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from paretobit.models import build
from paretobit.trials.evaluation.plain_code import is_plain

SCALE, FLAGS = 2.0, {"on": True}


def helper(x):
    return F.relu(x) * math.sqrt(SCALE)


def telling(module, x):
    return x if "Integer" in repr(module) else -x


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return helper(self.layer(x))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Inner(), Inner()])
        self.sizes = (1, 2)

    @property
    def factor(self):
        return len(self.sizes) / 2

    def joined(self, parts):
        return torch.stack([part.flatten(1) for part in parts]).sum(0)

    def forward(self, x):
        if self.training and len(self.sizes) > 5:
            raise ValueError("too many")
        return self.joined([block(x) for block in self.blocks]) * self.factor


def test_the_models_of_the_zoo_and_ordinary_code_are_plain():
    for name, shape in (("jsc-custom", (16,)), ("resnet20", (3, 32, 32)), ("densenet-tiny", (3, 32, 32))):
        assert is_plain(build(name, shape, 10))
    assert is_plain(Plain())


class OfFormats(Inner):
    def forward(self, x):
        return self.layer(x) * len(self.layer.slots)


class OfAPrint(Inner):
    def forward(self, x):
        return telling(self.layer, x)


class OfAText(Inner):
    def forward(self, x):
        return x if "Integer" in f"{self.layer}" else self.layer(x)


class OfTheTime(Inner):
    def forward(self, x):
        return self.layer(x) * time.time()


class OfAFile(Inner):
    def forward(self, x):
        open("there", "w").close()
        return self.layer(x)


class OfAGlobal(Inner):
    def forward(self, x):
        return self.layer(x) if FLAGS["on"] else x


class Remembers(Inner):
    def forward(self, x):
        self.last = x
        return self.layer(x)


class ByAProperty(Inner):
    @property
    def hidden(self):
        return repr(self.layer)

    def forward(self, x):
        return x if self.hidden else self.layer(x)


class InAMethod(Inner):
    def helper(self, x):
        return [telling(self, item) for item in x]

    def forward(self, x):
        return self.layer(self.helper([x])[0])


class Imports(Inner):
    def forward(self, x):
        import random

        return self.layer(x) * random.random()


class ByAClosure(Inner):
    secret = staticmethod((lambda flags: lambda x: x if flags["on"] else -x)(FLAGS))

    def forward(self, x):
        return self.secret(self.layer(x))


@pytest.mark.parametrize(
    "kind",
    [
        OfFormats,
        OfAPrint,
        OfAText,
        OfTheTime,
        OfAFile,
        OfAGlobal,
        Remembers,
        ByAProperty,
        InAMethod,
        Imports,
        ByAClosure,
    ],
)
def test_code_that_may_look_elsewhere_is_not_plain_wherever_it_stands(kind):
    assert not is_plain(kind())
    assert not is_plain(nn.Sequential(nn.ReLU(), nn.ModuleDict({"inner": kind()})["inner"]))
