"""BERT, ViT and GPT-2, quantised in all that they compute."""

import copy
import pickle

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from paretobit.formats import FULL
from paretobit.graph import trace
from paretobit.passes.layers.assignment import apply_assignment, assignment_of
from paretobit.passes.transform import QuantizeSettings, quantize

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IDS = torch.tensor([[5, 3, 8, 1, 9, 2], [7, 7, 4, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def bert(attention):
    config = BertConfig(vocab_size=20, max_position_embeddings=8, attn_implementation=attention, **SMALL)
    return BertForSequenceClassification(config), {"input_ids": IDS, "attention_mask": MASK}


def vit(attention):
    config = ViTConfig(image_size=16, patch_size=8, attn_implementation=attention, **SMALL)
    return ViTForImageClassification(config), {"pixel_values": torch.randn(2, 3, 16, 16)}


def gpt2(attention):
    size = {"n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2}
    tokens = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(attn_implementation=attention, **size, **tokens)), {"input_ids": IDS}


models = pytest.mark.parametrize("build", [bert, vit, gpt2])
kernels = pytest.mark.parametrize("attention", ["sdpa", "eager"])
BOTH = {"data_in": "integer(width=28, frac_width=20)", "weight": "integer(width=28, frac_width=20)"}
ENTRIES = {
    **dict.fromkeys(("linear", "conv2d", "layer_norm", "matmul", "scaled_dot_product_attention"), BOTH),
    **{op: {"data_in": BOTH["data_in"]} for op in ("add", "mul", "gelu", "tanh", "softmax")},
    "embedding": {"weight": BOTH["weight"]},
}


def wholly_quantised(build, attention):
    """A random model, its input, its graph, and the graph with every operation in 28 bits."""
    torch.manual_seed(0)
    model, example = build(attention)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases, which start as ones and zeros
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    graph = trace(model.eval(), example)
    present = {node.op for node in graph}
    settings = QuantizeSettings("type", {op: entry for op, entry in ENTRIES.items() if op in present})
    return model, example, graph, *quantize(graph, settings)


@torch.no_grad()
def logits(model, example):
    return model(**example).logits


@models
@kernels
def test_all_that_a_transformer_computes_is_quantised_and_close_at_28_bits(build, attention):
    model, example, graph, new, info = wholly_quantised(build, attention)
    expected, output = logits(model, example), logits(new.model, example)
    assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert not torch.equal(output, expected)
    wanted = {node.owner for node in graph.layers if node.op != "dropout"}
    assert wanted <= info["assignment"].keys()
    products = ("scaled_dot_product_attention",) if attention == "sdpa" else ("matmul", "matmul_1")
    for name in products:
        assert sum(path.rpartition(".")[2] == name for path in info["assignment"]) == 2
    assert set(info["unsupported"].values()) <= {"the function pow cannot be quantised"}  # of GPT-2's GELU


@models
@kernels
def test_at_full_precision_a_transformer_is_the_original_to_the_bit(build, attention):
    model, example, _, new, info = wholly_quantised(build, attention)
    apply_assignment(new.model, {path: {} for path in info["assignment"]})
    assert torch.equal(logits(new.model, example), logits(model, example))
    ours, theirs = new.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@models
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_quantised_transformer_computes_the_same(build, travel):
    _, example, _, new, info = wholly_quantised(build, "sdpa")
    arrived = travel(new.model)
    assert torch.equal(logits(arrived, example), logits(new.model, example))
    assert assignment_of(arrived) == assignment_of(new.model)
    assert {p for p, slots in assignment_of(arrived).items() if any(f is not FULL for f in slots.values())} == set(
        info["assignment"]
    )


@models
def test_a_quantised_transformer_trains(build):
    _, example, _, new, _ = wholly_quantised(build, "sdpa")
    new.model.train()
    new.model(**example).logits.square().mean().backward()
    gradients = {name: p.grad for name, p in new.model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert len(gradients) >= len(list(new.model.parameters())) - 1
    assert sum(gradient.abs().max() > 0 for gradient in gradients.values()) >= 0.9 * len(gradients)


def test_attention_in_few_bits_still_masks():
    torch.manual_seed(0)
    model, example = bert("sdpa")
    graph = trace(model.eval(), example)
    coarse = {"data_in": "integer(width=4, frac_width=2)", "weight": "integer(width=4, frac_width=2)"}
    new, _ = quantize(graph, QuantizeSettings("type", {"scaled_dot_product_attention": coarse}))
    changed = {**example, "input_ids": IDS.clone()}
    changed["input_ids"][1, 4:] = 11  # masked tokens
    output = logits(new.model, example)
    assert torch.equal(logits(new.model, changed), output)
    assert not torch.equal(output, logits(model, example))
