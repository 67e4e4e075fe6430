"""Files are whole or absent, and tensors come back as they were."""

import pytest
import torch

from paretobit.errors import BadInput
from paretobit.storage import read_tensors, replacing, write_tensors, write_text_atomic


def test_text_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "note.txt"
    write_text_atomic(path, "one")
    write_text_atomic(path, "zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    write_text_atomic(path, "old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_of_every_kind_come_back(tmp_path):
    base = torch.arange(12.0)
    tensors = {
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "empty2": torch.zeros(0, 4),
        "bools": torch.tensor([True, False]),
        "half": torch.randn(3).bfloat16(),
        "transposed": base.view(3, 4).t(),
        "slice": base[2:5],
        "base": base,
        "same": base,
        "expanded": torch.ones(1).expand(5),
    }
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_a_missing_or_cut_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no such file.*gone\.safetensors"):
        read_tensors(tmp_path / "gone.safetensors")
    write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(100)})
    whole = (tmp_path / "t.safetensors").read_bytes()
    for length in (0, 5, len(whole) - 10):
        (tmp_path / "t.safetensors").write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"not a whole safetensors file.*t\.safetensors"):
            read_tensors(tmp_path / "t.safetensors")
