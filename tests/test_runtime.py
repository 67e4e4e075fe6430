"""Seeds, threads, devices and users' files: decided in one place, and put back."""

import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretobit.errors import BadInput, MissingExtra
from paretobit.runtime import (
    MAX_SEED,
    derive_seed,
    device,
    is_reference,
    load_function,
    one_thread,
    optional,
    seed_everything,
    seeded,
)

patient = settings(deadline=None)  # a busy machine is no failure


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


@patient
@given(st.integers(0, MAX_SEED), st.lists(st.one_of(st.integers(), st.text(), st.none(), st.booleans())))
def test_a_derived_seed_is_a_seed_and_depends_on_nothing_else(seed, parts):
    derived = derive_seed(seed, *parts)
    assert 0 <= derived < 2**31
    assert derived == derive_seed(seed, *parts)


def test_derived_seeds_are_the_same_in_every_process_and_version():
    # the first eight bytes of sha256('[0, "trial", 3]'), modulo 2^31
    assert derive_seed(0, "trial", 3) == 0xF199BFD04E06EA8D % 2**31
    assert len({derive_seed(0, "trial", number) for number in range(2000)}) == 2000
    assert derive_seed(0, 1, 2) != derive_seed(0, 12)
    assert derive_seed(0, ["a", "b"]) != derive_seed(0, "a", "b")


def test_a_seeded_block_repeats_itself_and_leaves_no_trace():
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    with seeded(7):
        first = draw()
    with seeded(7):
        assert draw() == first
    assert draw() == expected


@pytest.mark.parametrize("seed", [7, -1, 2**40], ids=["good", "negative", "too large"])
def test_states_come_back_when_the_block_or_the_seed_fails(seed):
    seed_everything(1)
    expected = draw()
    seed_everything(1)

    def fail():
        with seeded(seed):
            draw()
            raise ValueError("inside")

    with pytest.raises((ValueError, BadInput), match=r"inside|not a seed \(seed\)"):
        fail()
    assert draw() == expected


def test_one_thread_inside_and_the_callers_number_after_even_on_failure():
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def fail():
        with one_thread():
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_devices_are_named_or_refused():
    assert device().type == "cpu"
    assert device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(BadInput, match=r"unknown device.*found 'cpuu'.*did you mean 'cpu'"):
        device("cpuu")
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match=r"no CUDA device.*found 'gpu'"):
            device("gpu")


def test_an_optional_package_is_imported_or_the_extra_is_named():
    assert optional("json", extra="x", purpose="y") is __import__("json")
    with pytest.raises(MissingExtra, match=r"drawing needs the package 'absent_package'.*paretobit\[plots\]"):
        optional("absent_package.part", extra="plots", purpose="drawing")


def test_a_function_is_loaded_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("def double(x):\n    return 2 * x\n")
    reference = f"{tmp_path / 'mine.py'}:double"
    assert is_reference(reference)
    assert not is_reference("jsc-tiny")
    assert load_function(reference)(4) == 8


def test_a_users_file_may_define_dataclasses_and_its_objects_pickle(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Point:\n"
        "    x: int = 1\n"
    )
    point = load_function(f"{tmp_path / 'mine.py'}:Point")(3)
    assert dataclasses.astuple(pickle.loads(pickle.dumps(point))) == (3,)


@pytest.mark.parametrize("reference", ["f", "f.py", ":f", "f.py:", "f.txt:g", ""])
def test_what_is_no_reference_is_refused(reference):
    with pytest.raises(BadInput, match=r"not a reference.*path/to/file\.py:name"):
        load_function(reference)


def test_a_missing_file_a_broken_file_and_a_missing_name_are_told_apart(tmp_path):
    with pytest.raises(BadInput, match=r"no such file.*gone\.py"):
        load_function(f"{tmp_path}/gone.py:f")
    (tmp_path / "broken.py").write_text("x = 1 / 0\n")
    with pytest.raises(BadInput, match=r"does not import: ZeroDivisionError.*broken\.py"):
        load_function(f"{tmp_path}/broken.py:x")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    with pytest.raises(BadInput, match=r"does not import: SyntaxError.*syntax\.py"):
        load_function(f"{tmp_path}/syntax.py:f")
    (tmp_path / "mine.py").write_text("def network(): ...\n")
    with pytest.raises(BadInput, match=r"mine\.py.*found 'netwrok'; allowed: network; did you mean 'network'"):
        load_function(f"{tmp_path}/mine.py:netwrok")


def test_a_users_file_may_import_its_neighbour(tmp_path):
    (tmp_path / "neighbour_of_a_users_file.py").write_text("VALUE = 7\n")
    (tmp_path / "user.py").write_text(
        "def value():\n    from neighbour_of_a_users_file import VALUE\n    return VALUE\n"
    )
    assert load_function(f"{tmp_path / 'user.py'}:value")() == 7
