"""Loss and accuracy are those of torch's own functions, ties and any number of classes included."""

import pytest
import torch
from torch.nn import functional as F

from paretobit.training.evaluate import Batches, Targets, evaluate_batches


@pytest.mark.parametrize("classes", [2, 5, 10, 32, 33, 100])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("by_class", [False, True], ids=["rows", "columns"])
def test_loss_and_correct_rows_are_those_of_cross_entropy_and_argmax(classes, ties, by_class):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(500, classes, generator=generator) * 3
    if ties:
        logits = logits.round().relu()
    if by_class:
        logits = logits.t().contiguous().t()
    labels = torch.randint(0, classes, (500,), generator=generator)
    before = logits.clone()
    targets = Targets(labels)
    for _ in range(2):
        loss, correct = targets.loss_and_correct(logits)
        assert correct.item() == (logits.argmax(1) == labels).sum().item()
        assert loss.item() == pytest.approx(F.cross_entropy(logits.double(), labels, reduction="sum").item(), 1e-6)
        assert loss.dtype == torch.float64
    assert torch.equal(logits, before)


def test_models_of_other_numbers_of_classes_and_dtypes_may_follow_on_the_same_labels():
    labels = torch.tensor([0, 1, 1])
    targets = Targets(labels)
    for logits in (torch.randn(3, 2), torch.randn(3, 4), torch.randn(3, 4).double(), torch.randn(3, 2)):
        loss, correct = targets.loss_and_correct(logits)
        assert correct.item() == (logits.argmax(1) == labels).sum().item()
        assert loss.item() == pytest.approx(F.cross_entropy(logits, labels, reduction="sum").item(), 1e-5)


def test_infinite_logits_count_as_argmax_says():
    logits = torch.tensor([[1.0, torch.inf, 2.0], [-torch.inf, 0.0, 1.0], [torch.inf, 1.0, torch.inf]])
    for labels in ([1, 2, 0], [0, 0, 2], [2, 1, 1]):
        _, correct = Targets(torch.tensor(labels)).loss_and_correct(logits)
        assert correct.item() == (logits.argmax(1) == torch.tensor(labels)).sum().item()


def test_the_last_batch_may_be_shorter():
    x, y = torch.randn(10, 3), torch.randint(0, 3, (10,))
    sizes = []

    def run(batch, number):
        sizes.append((len(batch), number))
        return batch

    found = evaluate_batches(run, Batches(x, y, 4))
    assert sizes == [(4, 0), (4, 1), (2, 2)]
    assert found.accuracy == (x.argmax(1) == y).double().mean().item()
    assert found.loss == pytest.approx(F.cross_entropy(x, y).item(), 1e-6)
