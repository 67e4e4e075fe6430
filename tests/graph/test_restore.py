"""A user's function may do anything to the model: the next trial does not see it, and no copy was made."""

import copy
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import paretobit as pb
from paretobit.formats import FULL, make
from paretobit.graph.restore import Restorer
from paretobit.nn import TensorCache, instrument
from paretobit.nn.masks import masks_in, set_mask


class Failure(Exception):
    pass


class Notes:
    def __init__(self):
        self.pages, self.self = ["first"], self


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.act = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()
        self.last = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.last.weight
        self.config = {"depth": [1, 2], "name": "x"}
        self.notes = Notes()
        self.norm.notes = self.notes
        self.plain = torch.ones(3)

    def forward(self, x):
        return self.tied(self.last(self.act(self.norm(self.first(x)))))


@pytest.fixture
def caller():
    torch.manual_seed(0)
    model = Net()
    model(torch.randn(16, 4))
    return model.eval()


@pytest.fixture
def model(caller):
    copied = copy.deepcopy(caller)
    cache = TensorCache()
    for path in ("first", "last"):
        instrument(copied.get_submodule(path), cache)
    copied.first.set_slots({"weight": make("integer", width=4, frac_width=2)})
    set_mask(copied.last, torch.arange(36).view(6, 6) % 3 > 0)
    return copied


def state_of(model):
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    tensors.append(("plain", model.plain))
    with torch.no_grad():
        output = model(torch.arange(8.0).view(2, 4))
    return {
        "tensors": {name: (t.detach().clone(), t.dtype, t.stride(), id(t)) for name, t in tensors},
        "flags": {name: (t.requires_grad, t.grad, bool(t._backward_hooks), dict(vars(t))) for name, t in tensors},
        "modules": {path: (id(m), type(m), m.training) for path, m in model.named_modules(remove_duplicate=False)},
        "attributes": {path: sorted(vars(m)) for path, m in model.named_modules()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "slots": [dict(m.slots) for m in model.modules() if hasattr(m, "slots")],
        "values": (copy.deepcopy(model.config), list(model.notes.pages), model.norm.momentum),
        "shared": (model.norm.notes is model.notes, model.notes.self is model.notes),
        "masks": masks_in(model.last)["weight"].clone(),
        "output": output,
    }


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def trains(model):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    model(torch.randn(32, 4)).square().mean().backward()
    optimizer.step()


def writes_where_torch_does_not_look(model):
    model.first.weight.data.mul_(3)
    model.norm.running_mean.numpy()[:] = 7
    model.plain.data.zero_()
    model.last.weight.detach().untyped_storage().fill_(1)


def replaces(model):
    model.first = nn.Identity()
    model.last.weight = nn.Parameter(torch.zeros(6, 6))
    model.norm.running_var = torch.zeros(6)
    del model.act
    model.extra = nn.Linear(2, 2)
    model.forward = lambda x: x


def converts(model):
    model.double()
    model.half()
    model.to(memory_format=torch.channels_last)


def swaps_memory(model):
    model.first.weight.data = torch.zeros(2, 2)
    model.last.weight.data = model.last.weight.data.t()
    model.last.bias.untyped_storage().resize_(0)


def hooks(model):
    model.register_forward_hook(lambda *_: torch.zeros(1))
    model.norm.register_forward_pre_hook(lambda m, args: (args[0] * 0,))
    model.last.weight.register_hook(lambda gradient: gradient * 0)
    model.first.weight.register_post_accumulate_grad_hook(lambda p: None)


def changes_attributes(model):
    model.config["depth"].append(3)
    model.config["new"] = model.notes
    model.notes.pages.clear()
    model.notes.self = None
    model.norm.momentum = 0.9
    model.norm.notes = Notes()
    model.new = 1
    model.first.weight.remark = "mine"
    del model.plain


def changes_flags(model):
    model.train().requires_grad_(False)
    model.first.bias.grad = torch.ones(6)
    model.norm.track_running_stats = False


def changes_formats_and_masks(model):
    model.first.slots["weight"] = FULL
    model.last.set_slots({"data_in": make("integer", width=2, frac_width=0)})
    set_mask(model.last, torch.zeros(6, 6, dtype=torch.bool))
    model.first.__class__ = nn.Linear


def parametrizes(model):
    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    parametrize.register_parametrization(model.first, "weight", Doubled())
    nn.utils.parametrizations.weight_norm(model.tied)


def raises(model):
    trains(model)
    raise Failure


HABITS = [
    trains, writes_where_torch_does_not_look, replaces, converts, swaps_memory, hooks, changes_attributes,
    changes_flags, changes_formats_and_masks, parametrizes, raises,
]  # fmt: skip


@pytest.mark.parametrize("habit", HABITS)
def test_whatever_was_done_to_the_model_is_undone(caller, model, habit):
    before, theirs = state_of(model), copy.deepcopy(caller.state_dict())
    restorer = Restorer(model, caller)
    for _ in range(3):
        restorer.see()
        with suppress(Failure):
            habit(model)
        restorer.restore()
        after = state_of(model)
        assert [key for key in before if not same(before[key], after[key])] == []
    assert same(dict(theirs), dict(caller.state_dict()))


def test_all_bad_habits_one_after_the_other(caller, model):
    before, restorer = state_of(model), Restorer(model, caller)
    for habit in HABITS[:-1]:
        restorer.see()
        habit(model)
        restorer.restore()
    assert same(state_of(model), before)


def test_masked_weights_get_no_gradient_after_hooks_were_undone(caller, model):
    restorer = Restorer(model, caller)
    for _ in range(2):
        restorer.see()
        model.train()(torch.randn(8, 4)).sum().backward()
        assert model.last.weight.grad[~masks_in(model.last)["weight"]].abs().max() == 0
        assert model.last.weight.grad.abs().max() > 0
        restorer.restore()


def test_only_what_differs_from_the_callers_model_is_copied(caller):
    model = copy.deepcopy(caller)
    with torch.no_grad():
        model.last.bias.add_(1)
    restorer = Restorer(model, caller)
    restorer.see()
    theirs = {t.data_ptr() for t in (*caller.parameters(), *caller.buffers())}
    copied = [k.tensor for k in restorer._tensors.values() if k._content.copy.data_ptr() not in theirs]
    assert {id(t) for t in copied} == {id(model.last.bias), id(model.plain)}


def test_the_search_gives_the_function_the_same_model_every_time(net, rows, linear_space):
    seen = []

    def evaluate(model):
        seen.append((id(model), [id(p) for p in model.parameters()]))
        trains_on = torch.optim.SGD(model.parameters(), lr=1.0)
        model(rows[0][:8].clone()).sum().backward()
        trains_on.step()
        return {"m": model(rows[0][:8].clone()).sum().item()}

    study = pb.search(net, evaluate=evaluate, example=rows[0][:1], space=linear_space, minimize="m")
    assert len(study) == 16
    assert len({address for address, _ in seen}) == 1
    assert all(parameters == seen[0][1] for _, parameters in seen)
