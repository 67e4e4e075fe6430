"""A sample of the zoo, of every family and every cause of trouble that was seen; `make zoo` takes all of it."""

import pytest
from architectures import ZOO
from checks import CHECKS, check, verdict
from table import table, troubles

SAMPLE = (
    *("deberta-v2", "xlnet", "llama-tied", "opt", "mamba2", "mixtral", "bart"),
    *("superpoint", "poolformer", "bit", "wavlm", "clip"),
)


@pytest.mark.parametrize("name", SAMPLE)
def test_an_architecture_is_right_or_what_is_left_out_is_said(name):
    found = check(ZOO[name])
    assert [text for text in found.found.values() if verdict(text) == "wrong"] == []


def test_the_table_counts_every_check_of_every_family():
    results = [check(ZOO[name], ("traced", "costs")) for name in ("bert", "gpt2")]
    for result in results:
        result.found |= dict.fromkeys(set(CHECKS) - result.found.keys(), "said: nothing")
    results[0].found["saved"] = "RuntimeError: sizes"
    lines = table(results)
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["encoder", "decoder", "all"]
    assert lines[-1].count("2 / 0 / 0") == 2
    assert "0 / 1 / 1" in lines[-1]
    assert "bert: saved: RuntimeError: sizes" in troubles(results[0])
