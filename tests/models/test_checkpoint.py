"""Weights are read without running code, fitted whole or not at all, and survive a round trip."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from paretobit.errors import BadInput, CheckpointMismatch
from paretobit.models.checkpoint import load_state, read_state, save_weights


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".ckpt"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
def test_state_dicts_are_found_where_frameworks_put_them(tmp_path, suffix, wrap):
    state = net().state_dict()
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / f"w{suffix}")
    assert same(read_state(tmp_path / f"w{suffix}"), state)


def test_a_state_dict_in_a_wrapper_in_a_wrapper_is_found(tmp_path):
    torch.save({"model": {"state_dict": net().state_dict()}}, tmp_path / "w.pt")
    assert same(read_state(tmp_path / "w.pt"), net().state_dict())


@pytest.mark.parametrize("place", ["weights.safetensors", "best/weights.safetensors"])
def test_a_folder_stands_for_the_weights_in_it(tmp_path, place):
    save_weights(net(), tmp_path / place)
    assert same(read_state(tmp_path), net().state_dict())


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"no such file.*gone\.pt"):
        read_state(tmp_path / "gone.pt")
    with pytest.raises(BadInput, match=r"no weights in the folder.*best/weights\.safetensors"):
        read_state(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"unknown kind.*'\.bin'.*\.safetensors, \.pt"):
        read_state(tmp_path / "w.bin")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_damaged_files_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"w{suffix}"
    torch.save(net().state_dict(), path) if suffix == ".pt" else save_weights(net(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(BadInput, match=rf"w\{suffix}"):
        read_state(path)


@pytest.mark.filterwarnings("error")
def test_text_and_foreign_pickles_are_refused(tmp_path):
    for content in (b"hello, these are no weights", pickle.dumps([1, 2]), b"\x80\x05\x00"):
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(BadInput, match="damaged, or is not one"):
            read_state(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [[1, 2], 7, "text", torch.zeros(3)])
def test_a_pickle_that_is_no_checkpoint_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BadInput, match="not a checkpoint"):
        read_state(tmp_path / "w.pt")


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "w.pt")
    with pytest.raises(BadInput, match="no tensors"):
        read_state(tmp_path / "w.pt")


def test_code_in_a_checkpoint_never_runs(tmp_path):
    torch.save({"state_dict": net().state_dict(), "extra": Touch(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(BadInput, match=r"refused.*would run code.*mkdir"):
        read_state(tmp_path / "w.pt")
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(BadInput, match=r"refused.*would run code.*torch\.nn.*state_dict"):
        read_state(tmp_path / "whole.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module.", "module.model.", "_orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(prefix):
    model = net(1)
    load_state(model, {prefix + name: value for name, value in net().state_dict().items()}, "file")
    assert same(model.state_dict(), net().state_dict())


def test_a_prefix_that_is_the_models_own_stays():
    model, other = nn.ModuleDict({"model": net(1)}), nn.ModuleDict({"model": net(0)})
    load_state(model, other.state_dict(), "file")
    assert same(model.state_dict(), other.state_dict())
    load_state(model, {f"module.{name}": value for name, value in other.state_dict().items()}, "file")


def test_the_batch_counter_may_be_absent_or_extra():
    model = net(1)
    state = {name: value for name, value in net().state_dict().items() if "num_batches" not in name}
    load_state(model, {**state, "0.num_batches_tracked": torch.tensor(3)}, "file")
    assert torch.equal(model[0].weight, net()[0].weight)


def test_a_mismatch_names_everything_and_changes_nothing():
    model = net(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = dict(net().state_dict())
    state["0.weight"], state["extra.weight"] = torch.zeros(4, 9), torch.zeros(2, 2)
    del state["3.bias"]
    with pytest.raises(CheckpointMismatch) as failure:
        load_state(model, state, "w.pt")
    message = str(failure.value)
    assert "1 missing: 3.bias 2;" in message
    assert "1 unexpected: extra.weight 2x2;" in message
    assert "1 of another shape: 0.weight 4x9, the model's is 4x3" in message
    assert "w.pt" in message
    assert same(model.state_dict(), before)


def test_a_long_mismatch_is_counted():
    with pytest.raises(CheckpointMismatch, match=r"9 unexpected: .*x5 1, and 3 more"):
        load_state(net(), {**net().state_dict(), **{f"x{i}": torch.zeros(1) for i in range(9)}}, "w.pt")


def test_values_take_the_models_dtype_and_keep_its_parameters():
    model = net(1)
    weight = model[0].weight
    load_state(model, {name: value.double() for name, value in net().state_dict().items()}, "file")
    assert model[0].weight is weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, net()[0].weight)


def test_tied_weights_survive(tmp_path):
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "w.safetensors")
    load_state(other, read_state(tmp_path / "w.safetensors"), "w")
    assert torch.equal(other.head.weight, model.embed.weight)
    assert other.head.weight is other.embed.weight
    third = Tied()
    load_state(third, {"embed.weight": model.embed.weight}, "w")
    assert torch.equal(third.head.weight, model.embed.weight)


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(BadInput, match=r"\*\.safetensors"):
        save_weights(net(), tmp_path / "w.pt")
    with pytest.raises(BadInput, match="no tensors"):
        save_weights(nn.ReLU(), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("PARETOBIT_TEST_DATA" not in os.environ, reason="PARETOBIT_TEST_DATA is not set")
def test_a_published_checkpoint_reads():
    state = read_state(Path(os.environ["PARETOBIT_TEST_DATA"]) / "resnet20-12fca82f_cifar10.th")
    assert state["module.conv1.weight"].shape == (16, 3, 3, 3)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    stem = nn.Sequential()
    stem.add_module("conv1", nn.Conv2d(3, 16, 3, bias=False))
    with pytest.raises(CheckpointMismatch, match=r"unexpected: bn1\.weight"):
        load_state(stem, state, "resnet20")
