"""A student learns from its teacher, which is left alone."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from paretobit.errors import BadInput
from paretobit.training import Distillation, TrainSettings, fit
from paretobit.training.distillation import distance


def blobs(rows=200, seed=0):
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (rows,), generator=draws)
    return torch.randn(rows, 4, generator=draws) + 3 * torch.eye(3, 4)[y], y


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


SHORT = {"max_epochs": 3, "batch_size": 50, "learning_rate": 0.01}


def test_the_distance_is_the_sum_over_classes_written_out():
    student, teacher, t = (torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]]), torch.tensor([[0.0, 1.0, 4.0]] * 2), 3)

    def softmax(row):
        powers = [math.exp(value / t) for value in row]
        return [power / sum(powers) for power in powers]

    rows = [
        sum(p * math.log(p / q) for p, q in zip(softmax(wanted), softmax(given), strict=True))
        for wanted, given in zip(teacher.tolist(), student.tolist(), strict=True)
    ]
    assert distance(student, teacher, t).item() == pytest.approx(t * t * sum(rows) / 2, rel=1e-5)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_one_step_goes_down_the_gradient_of_both_losses(weight):
    """Plain torch, written out: SGD on (1 - w) cross-entropy + w T² KL(teacher || student)."""
    x, y = blobs(40)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    reference = nn.Linear(4, 3)
    reference.load_state_dict(student.state_dict())
    with torch.no_grad():
        wanted = torch.softmax(teacher(x) / 4, 1)
    logits = reference(x)
    soft = (wanted * (wanted.log() - torch.log_softmax(logits / 4, 1))).sum(1).mean() * 16
    loss = (1 - weight) * nn.functional.cross_entropy(logits, y) + weight * soft
    loss.backward()
    settings = TrainSettings(max_epochs=1, batch_size=40, optimizer="sgd", learning_rate=0.5)
    how = Distillation(teacher_weight=weight, teacher_temperature=4)
    history = fit(student, (x, y), None, settings, teacher=teacher, distillation=how)
    assert history.epochs[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(student.weight, reference.weight - 0.5 * reference.weight.grad)
    torch.testing.assert_close(student.bias, reference.bias - 0.5 * reference.bias.grad)


def test_the_teacher_is_left_bit_identical_and_in_its_mode():
    teacher = net(1).train()
    before = state(teacher)
    fit(net(), blobs(), blobs(seed=1), TrainSettings(**SHORT), teacher=teacher)
    assert same(state(teacher), before)
    assert teacher.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())


def test_the_teacher_sees_the_augmented_batch_before_a_student_that_works_in_place():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            seen.append(x.clone())
            return self.layer(x)

    given = []

    def augment(x, draws):
        given.append(x - 5 + torch.rand(x.shape, generator=draws))
        return given[-1].clone()

    student = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    fit(student, blobs(), None, TrainSettings(**SHORT), augment=augment, teacher=Spy())
    batches = seen[1:]  # the first call is the check of two rows
    assert len(batches) == len(given) == 12
    assert all(torch.equal(left, right) for left, right in zip(batches, given, strict=True))


def test_equal_arguments_give_equal_weights_and_without_a_teacher_others():
    def trained(**how):
        model = net()
        fit(model, blobs(), blobs(seed=1), TrainSettings(**SHORT), **how)
        return state(model)

    assert same(trained(teacher=net(1).eval()), trained(teacher=net(1).train()))
    assert not same(trained(teacher=net(1)), trained())
    softer = Distillation(teacher_temperature=5)
    assert not same(trained(teacher=net(1)), trained(teacher=net(1), distillation=softer))


def test_a_student_of_wrong_labels_learns_the_right_ones_from_its_teacher():
    train, val, teacher = blobs(), blobs(seed=1), net(1)
    fit(teacher, train, val, TrainSettings(**{**SHORT, "max_epochs": 8}))
    wrong = train[0], (train[1] + 1) % 3
    history = fit(
        net(), wrong, val, TrainSettings(**{**SHORT, "max_epochs": 8}), teacher=teacher,
        distillation=Distillation(teacher_weight=1),
    )  # fmt: skip
    assert history.best_value > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": nn.Linear(4, 2)}, "not the student's classes"),
        ({"teacher": nn.Linear(5, 3)}, "does not run on this data"),
        ({"distillation": Distillation()}, "no teacher"),
        (
            {
                "teacher": nn.Linear(4, 3),
                "train": (torch.zeros(9, 4), torch.zeros(9, 3)),
                "loss": nn.functional.mse_loss,
            },
            "needs targets that are classes",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(change, message):
    model = net()
    before = state(model)
    with pytest.raises(BadInput, match=message):
        fit(**{"model": model, "train": blobs(), "val": None, "settings": TrainSettings(**SHORT), **change})
    assert same(state(model), before)


@pytest.mark.parametrize(
    "given", [{"teacher_weight": 0}, {"teacher_weight": 1.1}, {"teacher_temperature": 0}, {"weight": 0.5}]
)
def test_settings_of_a_teacher_out_of_range_are_refused(given):
    with pytest.raises(ValidationError):
        Distillation(**given)
