"""The tree of knobs counts, enumerates, walks and checks the same configurations in the same order."""

import itertools
import json
import subprocess
import sys
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paretobit.errors import BadInput
from paretobit.spaces.knobs import Config, Knob, Option, Tree

plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)
)


@st.composite
def trees(draw, depth=2):
    """Random trees; names say where a knob stands, so all differ."""

    def knobs(path, depth):
        count = draw(st.integers(0 if path else 1, 3 if depth else 2))
        return tuple(knob(f"{path}{i}", depth) for i in range(count))

    def knob(name, depth):
        values = draw(st.lists(plain, min_size=1, max_size=3, unique_by=lambda v: (isinstance(v, bool), v)))
        owns = [depth > 0 and draw(st.booleans()) for _ in values]
        return Knob(
            name,
            tuple(
                Option(v, knobs(f"{name}.{i}.", depth - 1) if own else ())
                for i, (v, own) in enumerate(zip(values, owns, strict=True))
            ),
        )

    return Tree(knobs("", depth))


def enumerate_by_product(knobs):
    """All configurations as lists of pairs: nested loops, the last knob innermost."""

    def of(knob):
        return [
            [(knob.name, option.value), *rest] for option in knob.options for rest in enumerate_by_product(option.knobs)
        ]

    return [list(itertools.chain(*parts)) for parts in itertools.product(*map(of, knobs))]


@settings(max_examples=150, deadline=None)
@given(trees())
def test_at_enumerates_what_nested_loops_enumerate(tree):
    assume(tree.size <= 3000)
    expected = enumerate_by_product(tree.knobs)
    assert tree.size == len(expected)
    configs = [tree.at(i) for i in range(tree.size)]
    assert [list(config.items()) for config in configs] == expected
    assert len(set(configs)) == tree.size


@settings(max_examples=100, deadline=None)
@given(trees(), st.randoms(use_true_random=False))
def test_walk_check_and_json_agree_with_at(tree, random):
    config = tree.at(random.randrange(tree.size))
    asked = []

    def choose(knob):
        asked.append(knob.name)
        return config[knob.name]

    assert tree.walk(choose) == config
    assert asked == list(config)
    assert tree.check(json.loads(config.to_json())) == config
    assert Config.from_json(config.to_json()) == config
    assert set(config) <= {knob.name for knob in tree.all_knobs()}


def test_the_last_knob_varies_fastest():
    tree = Tree((Knob.of("a", [1, 2]), Knob.of("b", ["x", "y", "z"])))
    assert [tuple(tree.at(i).values()) for i in range(6)] == list(itertools.product([1, 2], "xyz"))


def test_a_space_of_10_to_the_25_is_counted_and_indexed_at_once():
    start = time.perf_counter()
    tree = Tree(tuple(Knob.of(f"k{i}", list(range(10))) for i in range(25)))
    assert tree.size == 10**25
    assert "".join(map(str, tree.at(1234567890123456789012345).values())) == "1234567890123456789012345"
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_outside_the_space_is_refused(index):
    with pytest.raises(IndexError):
        Tree((Knob.of("a", [1, 2]), Knob.of("b", [1, 2, 3]))).at(index)


def test_the_fingerprint_changes_with_every_knob_option_and_order():
    a, b = Knob.of("a", [1, 2]), Knob.of("b", ["x"])
    owner = Knob("a", (Option(1, (b,)), Option(2)))
    variants = [
        Tree((a, b)),
        Tree((b, a)),
        Tree((a,)),
        Tree((Knob.of("a", [2, 1]), b)),
        Tree((Knob.of("a", [1, 2, 3]), b)),
        Tree((Knob.of("a", [1.0, 2]), b)),
        Tree((Knob.of("a", [True, 2]), b)),
        Tree((Knob.of("a", ["1", 2]), b)),
        Tree((Knob.of("c", [1, 2]), b)),
        Tree((a, Knob.of("b", [None]))),
        Tree((owner,)),
        Tree((Knob("a", (Option(1), Option(2, (b,)))),)),
    ]
    prints = [tree.fingerprint for tree in variants]
    assert len(set(prints)) == len(prints)
    assert Tree((Knob.of("a", [1, 2]), Knob.of("b", ["x"]))).fingerprint == prints[0]


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from paretobit.spaces.knobs import Knob, Option, Tree\n"
        "print(Tree((Knob('a', (Option('x', (Knob.of('b', [1, 2.5, None]),)), Option(True))),)).fingerprint)"
    )
    here = Tree((Knob("a", (Option("x", (Knob.of("b", [1, 2.5, None]),)), Option(True))),)).fingerprint
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


@given(st.dictionaries(st.text(max_size=4), plain, max_size=5))
def test_a_configuration_survives_json_with_its_types_and_order(values):
    config = Config(values)
    again = Config.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert list(again.items()) == list(config.items())
    assert [type(v) for v in again.values()] == [type(v) for v in config.values()]


def test_configurations_differ_when_a_value_a_type_or_the_order_does():
    different = [
        Config({"a": 1, "b": 2}),
        Config({"b": 2, "a": 1}),
        Config({"a": True, "b": 2}),
        Config({"a": 1.0, "b": 2}),
        Config({"a": "1", "b": 2}),
        Config({"a": None, "b": 2}),
        Config({"a": 1}),
    ]
    assert len(set(different)) == len(different)
    assert all(x != y for x, y in itertools.combinations(different, 2))


def test_equal_configurations_have_equal_hashes_and_no_one_changes_them():
    values = {"a": 1, "b": None}
    config = Config(values)
    values["a"] = 2
    assert config == Config({"a": 1, "b": None})
    assert hash(config) == hash(Config({"a": 1, "b": None}))
    with pytest.raises(TypeError):
        config["a"] = 3


def test_true_is_an_option_of_its_own_beside_one():
    knob = Knob.of("flag", [1, True, 0, False])
    assert [type(knob.option(value).value) for value in (1, True, 0, False)] == [int, bool, int, bool]
    assert not knob.ordered
    with pytest.raises(BadInput, match="not an option"):
        Knob.of("flag", [1, 2]).option(True)


@pytest.mark.parametrize("values", [[4, 4], ["a", "a"], [None, None], [1, 1.0], [True, True]])
def test_an_option_listed_twice_is_refused(values):
    with pytest.raises(BadInput, match="listed twice"):
        Knob.of("a", values)


def test_a_knob_without_options_is_refused():
    with pytest.raises(BadInput, match="at least one option"):
        Knob.of("empty", [])


def nested_alike():
    inner = Knob.of("b", [1, 2])
    return {
        "beside each other": (Knob.of("b", [1]), inner),
        "owned and beside": (Knob("a", (Option(1, (inner,)), Option(2))), Knob.of("b", [1])),
        "owned by itself": (Knob("b", (Option(1, (inner,)),)),),
        "owned by two neighbours": (Knob("a", (Option(1, (inner,)),)), Knob("c", (Option(1, (inner,)),))),
        "deep inside": (Knob("a", (Option(1, (Knob("c", (Option(1, (inner, inner)),)),)),)),),
    }


@pytest.mark.parametrize("where", nested_alike())
def test_two_knobs_of_one_name_that_can_be_active_together_are_refused(where):
    with pytest.raises(BadInput, match="same name"):
        Tree(nested_alike()[where])


def test_options_of_one_knob_may_own_knobs_of_one_name():
    tree = Tree((Knob("a", (Option(1, (Knob.of("b", [1, 2]),)), Option(2, (Knob.of("b", [1, 2]),)))),))
    assert tree.size == 4
    assert [knob.name for knob in tree.all_knobs()] == ["a", "b"]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"depth": 1, "kind": "x"}, "lacks a knob"),
        ({"depth": 3, "kind": "x", "name": "float"}, "not an option"),
        ({"depth": 1, "kind": "x", "name": "float", "width": 4}, "unknown knob"),
        ({"depth": True, "kind": "x", "name": "float"}, "not an option"),
        ({"depth": 1, "kind": "x", "name": "integer", "width": 4}, "lacks a knob"),
    ],
)
def test_a_stored_configuration_that_is_not_of_the_tree_is_refused(mixed_tree, stored, message):
    with pytest.raises(BadInput, match=message):
        mixed_tree.check(stored)


def test_the_refusal_names_the_knob_and_what_it_allows(mixed_tree):
    with pytest.raises(BadInput) as refused:
        mixed_tree.check({"depth": 1, "kind": "x", "name": "intger"})
    assert refused.value.key == "name"
    assert refused.value.closest == "integer"
