"""Perplexity is that of the model's own loss, over all tokens that count."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

import paretobit as pb
from paretobit.errors import BadInput
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, Candidate

KIND = RUNNERS["perplexity"]


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2, use_cache=False)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def ids():
    return torch.randint(1, 32, (7, 10), generator=torch.Generator().manual_seed(1))


def runner(model, x, y, **settings):
    evidence = Evidence(pb.trace(model, x[:1]), {"val": (x, y)})
    return KIND(evidence, KIND.Settings(**settings))


def measure(model, x, y, **settings):
    return runner(model, x, y, **settings).measure(Candidate({}, model))


def test_the_tokens_themselves_as_labels_give_the_models_own_loss(gpt2, ids):
    with torch.no_grad():
        expected = gpt2(input_ids=ids, labels=ids).loss.item()
    for batch_size in (None, 1, 3, 7):
        measured = measure(gpt2, ids, ids, shift=True, batch_size=batch_size)
        assert measured["token_loss"] == pytest.approx(expected, abs=1e-5)
        assert measured["perplexity"] == math.exp(measured["token_loss"])


def test_labels_of_minus_100_do_not_count(gpt2, ids):
    labels = torch.cat([ids[:, 1:], torch.full((7, 1), -100)], 1)
    labels[:3, :4] = -100  # rows of different length: a mean of means of batches would differ
    with torch.no_grad():
        expected = F.cross_entropy(gpt2(ids).logits.flatten(0, 1), labels.flatten(), ignore_index=-100).item()
    assert measure(gpt2, ids, labels, batch_size=2)["token_loss"] == pytest.approx(expected, abs=1e-5)
    assert measure(gpt2, ids, labels, num_samples=2)["token_loss"] != pytest.approx(expected, abs=1e-4)


def test_padding_is_not_attended_to_and_does_not_count(gpt2, ids):
    padded = ids.clone()
    padded[:4, :5] = 0  # on the left: without a mask, the rest would see it
    mask = (padded != 0).long()
    labels = torch.where(mask.bool(), padded, -100)
    labels[:4, 5] = -100  # what follows on padding has no input to be predicted from
    with torch.no_grad():
        expected = gpt2(input_ids=padded, attention_mask=mask, labels=labels).loss.item()
        unmasked = gpt2(input_ids=padded, labels=labels).loss.item()
    measured = measure(gpt2, padded, padded, shift=True, padding=0)["token_loss"]
    assert measured == pytest.approx(expected, abs=1e-5)
    assert abs(measured - unmasked) > 1e-4


class Bigram(nn.Module):
    """Logits of the next token from the last one, in a table."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table)

    def forward(self, x):
        return self.table(x)


def test_a_plain_model_has_the_perplexity_of_its_table():
    chances = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    x, y = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]])
    measured = measure(Bigram(chances.log()), x, y)
    assert measured["perplexity"] == pytest.approx((1 / (0.5 * 0.5 * 0.75)) ** (1 / 3), rel=1e-6)


def test_what_is_not_a_number_stays_none_and_what_is_too_large_is_infinite():
    x = torch.zeros(1, 2, dtype=torch.long)
    nan = measure(Bigram(torch.tensor([[math.nan, 0.0]])), x, x)
    assert math.isnan(nan["perplexity"])
    assert math.isnan(nan["token_loss"])
    wrong = measure(Bigram(torch.tensor([[-5000.0, 0.0]])), x, x)
    assert wrong["token_loss"] == pytest.approx(5000)
    assert wrong["perplexity"] == math.inf


@pytest.mark.parametrize(
    ("y", "settings", "message"),
    [
        (torch.zeros(1, dtype=torch.long), {}, "not token ids and labels"),
        (torch.zeros(1, 2), {}, "not token ids and labels"),
        (torch.full((1, 2), -100), {}, "no label counts"),
        (torch.full((1, 2), 2), {}, "labels outside the vocabulary"),
        (torch.zeros(1, 2, dtype=torch.long), {"padding": 1}, "cannot leave out padding"),
    ],
)
def test_data_that_does_not_fit_is_refused(y, settings, message):
    x = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(BadInput, match=message):
        runner(Bigram(torch.zeros(2, 2)), x, y, **settings)


def test_a_classifier_is_no_language_model():
    x = torch.zeros(1, 2, dtype=torch.long)
    model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(BadInput, match="needs a language model"):
        runner(model, x, x)


def test_a_language_model_is_searched_by_its_perplexity(gpt2, ids):
    space = pb.Quantize(by="regex", seed={r".*attn\.c_attn": {"weight": ["integer(width=2)", "integer(width=8)"]}})
    study = pb.search(
        gpt2,
        space=space,
        val=(ids, ids),
        minimize=["perplexity", "model_size"],
        runners={"perplexity": {"shift": True}, "model_size": {}},
    )
    assert study.counts()["complete"] == 4
    best = min(study.trials, key=lambda t: t.metrics["token_loss"])
    with torch.no_grad():
        expected = best.model()(input_ids=ids, labels=ids).loss.item()
    assert best.metrics["token_loss"] == pytest.approx(expected, abs=1e-5)
    assert len({t.metrics["perplexity"] for t in study.trials}) == 4
