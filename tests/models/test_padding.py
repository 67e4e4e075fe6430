"""Padding changes nothing: a row in a batch gives the logits of its sentence alone, and costs the same."""

import copy
import pickle

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paretobit.data.text import by_length, lengths, typical_rows
from paretobit.data.tokenizer import padded
from paretobit.errors import BadInput
from paretobit.formats import Integer
from paretobit.graph import trace
from paretobit.graph.operations import OPERATIONS
from paretobit.models import build, load, save, source_of
from paretobit.models.huggingface import example_input
from paretobit.nn.functions import possible_function_slots
from paretobit.passes.analysis import cost
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.training import TrainSettings, evaluate, fit

VOCABULARY, PAD, LONGEST = 60, 0, 12
TOKENS = {"vocab_size": VOCABULARY, "pad": PAD}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
KINDS = {
    "bert": ("hf:bert", {**SMALL, "intermediate_size": 48}),
    "bert eager": ("hf:bert", {**SMALL, "intermediate_size": 48, "attn_implementation": "eager"}),
    "distilbert": ("hf:distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "roberta": ("hf:roberta", {**SMALL, "intermediate_size": 48}),
    "gpt2": ("hf:gpt2", SMALL),
    "gpt2 eager": ("hf:gpt2", {**SMALL, "attn_implementation": "eager"}),
}


def made(kind, seed=0, tokens=TOKENS):
    name, config = KINDS[kind]
    return build(name, (LONGEST,), 3, seed, config=config, tokens=tokens).eval()


def sentences(count=9, longest=9):
    generator = torch.Generator().manual_seed(5)
    many = torch.randint(1, longest + 1, (count,), generator=generator)
    return [torch.randint(1, VOCABULARY, (int(n),), generator=generator).tolist() for n in many]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_row_gives_the_logits_of_its_sentence_alone(kind):
    rows = sentences()
    assert len({len(row) for row in rows}) > 3
    model = made(kind)
    own = type(model).__mro__[2](model.config).eval()
    own.load_state_dict(model.state_dict())
    alone = torch.cat([own(torch.tensor([row])).logits for row in rows])  # transformers on no padding at all
    for width in (9, LONGEST):
        torch.testing.assert_close(model(padded(rows, PAD, width)), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_row_of_padding_gives_numbers_and_leaves_the_others_alone(kind):
    model, rows = made(kind), sentences()
    mixed = model(padded([[], *rows], PAD, LONGEST))
    assert torch.isfinite(mixed).all()
    torch.testing.assert_close(mixed[1:], model(padded(rows, PAD)), rtol=0, atol=1e-5)
    assert torch.isfinite(model(padded([[], []], PAD, LONGEST))).all()
    torch.testing.assert_close(mixed[:1], model(torch.tensor([[PAD]])), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_quantised_too_each_row_gives_the_logits_of_its_sentence_alone(kind):
    model, rows = made(kind), sentences()
    plain, graph = model(padded(rows, PAD)), trace(model, padded(rows[:1], PAD, LONGEST))
    # GPT-2 calls sums of integers for its mask beside its own sums, more of them where there is padding.
    ops = {
        node.site: node.op
        for node in graph
        if node.kind != "call_module" and OPERATIONS.operands(node.op) and node.owner not in ("", "transformer")
    }
    assert "matmul" in ops.values() if "eager" in kind else "scaled_dot_product_attention" in ops.values()
    chosen = {site: dict.fromkeys(possible_function_slots(op), Integer(16, 10)) for site, op in ops.items()}
    layers = [path for path, module in model.named_modules() if type(module) is torch.nn.Linear]
    apply_assignment(model, chosen | {path: {"weight": Integer(6, 4)} for path in layers})
    alone = torch.cat([model(torch.tensor([row])) for row in rows])
    together = model(padded(rows, PAD, LONGEST))
    # A value at the edge between two steps of a format, 2⁻¹⁰ apart, may fall to either side.
    torch.testing.assert_close(together, alone, rtol=0, atol=8 * 2**-10)
    assert not torch.equal(together, plain)


@torch.no_grad()
def test_a_batch_is_cut_to_its_longest_row_before_the_model_runs():
    model, seen = made("bert"), []
    model.bert.embeddings.register_forward_hook(lambda m, a, out: seen.append(tuple(out.shape)))
    model(padded([[3, 4, 5], [6]], PAD, LONGEST))
    model(padded([[3]], PAD, LONGEST))
    assert seen == [(2, 3, 32), (1, 1, 32)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_macs_of_a_typical_row_are_those_of_the_sentence_without_padding(kind):
    model, x = made(kind), padded(sentences(), PAD, LONGEST)
    example = typical_rows(x, PAD)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        type(model).__mro__[2](model.config).eval()(example[:1].clone())
    padded_again = torch.nn.functional.pad(example, (0, 5), value=PAD)
    for given in (example, padded_again):
        assert 2 * cost(trace(model, given)).total("macs") == counter.get_total_flops()


@pytest.mark.parametrize("pad", [0, 3])
def test_an_example_of_a_model_has_all_its_tokens(pad):
    model = build("hf:bert", (LONGEST,), 3, config=KINDS["bert"][1], tokens={"vocab_size": 60, "pad": pad})
    assert trace(model, example_input(model, (LONGEST,))).batch == 2
    embedded = next(node for node in trace(model, example_input(model, (LONGEST,), 2)) if node.op == "embedding")
    assert embedded.output_shape == (2, LONGEST, 32)


def test_the_typical_row_is_nearest_the_mean():
    rows = [[1] * 8, [2], [3] * 4, [4] * 3, [5] * 4]  # on average 4
    x = padded(rows, PAD, 10)
    assert typical_rows(x, PAD).tolist() == [[3] * 4, [1] * 4]  # and another of at least its length
    assert lengths(x, PAD).tolist() == [8, 1, 4, 3, 4]
    assert by_length(x, PAD).tolist() == [1, 3, 2, 4, 0]
    assert typical_rows(padded([[], []], PAD, 4), PAD).shape == (2, 1)


@torch.no_grad()
def test_without_knowledge_of_padding_every_token_is_attended_to():
    knowing, other = made("bert"), made("bert", tokens=None)
    assert other.config.vocab_size == 30522
    other = build("hf:bert", (LONGEST,), 3, config={**KINDS["bert"][1], "vocab_size": VOCABULARY}).eval()
    x = padded([[3, 4], [5] * LONGEST], PAD)
    assert not torch.allclose(knowing(x)[0], other(x)[0])
    assert torch.equal(other(x), transformers.BertForSequenceClassification.forward(other, x).logits)


@torch.no_grad()
def test_copies_and_saved_models_know_their_padding(tmp_path):
    model, x = made("gpt2"), padded(sentences(), PAD, LONGEST)
    expected = model(x)
    save(tmp_path, model, source=source_of("hf:gpt2", (LONGEST,), 3, config=SMALL, tokens=TOKENS))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), load(tmp_path)):
        assert again.padding == PAD
        assert again.config.vocab_size == VOCABULARY
        assert torch.equal(again(x), expected)


def test_padding_is_masked_while_training(tmp_path):
    rows = sentences(24)
    labels = torch.tensor([row[0] % 3 for row in rows])
    settings = TrainSettings(max_epochs=2, batch_size=8, learning_rate=1e-3)
    losses = []
    for width in (9, LONGEST):
        x = padded(rows, PAD, width)
        model = build("hf:bert", (width,), 3, config={**KINDS["bert"][1], "hidden_dropout_prob": 0.0,
                      "attention_probs_dropout_prob": 0.0}, tokens=TOKENS)  # fmt: skip
        fit(model, (x, labels), (x, labels), settings, folder=tmp_path / str(width))
        losses.append(evaluate(model, x, labels, 7).loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "tokens", "message"),
    [
        ("hf:bert", {"vocab_size": 50}, TOKENS, r"more ids than the model.*vocab_size.*found 50; allowed: 60"),
        ("hf:bert", {"pad_token_id": 3}, TOKENS, r"pads with another token.*pad_token_id.*found 3; allowed: 0"),
        ("hf:bert", {"max_position_embeddings": 8}, TOKENS, r"longer than the model.*found 8; allowed: 12 or"),
        ("hf:roberta", {**SMALL, "max_position_embeddings": 12}, TOKENS, r"found 12; allowed: 13 or more"),
    ],
)
def test_token_ids_that_a_configuration_cannot_take_are_refused(name, config, tokens, message):
    with pytest.raises(BadInput, match=message):
        build(name, (LONGEST,), 3, config=config, tokens=tokens)
