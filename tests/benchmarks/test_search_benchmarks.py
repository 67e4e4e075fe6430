"""The benchmarks of the search run, print what they promise, and name the limits that were missed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(name, *arguments):
    command = [sys.executable, str(FOLDER / name), "--json", "--no-record", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_study_is_small_and_opens_at_once():
    done = run("study_size.py", "--trials", "1200")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] == 1200
    assert int(found["configurations"]) > 10**25
    assert found["study_mb"] < 1.5


@pytest.mark.slow
def test_the_evaluation_benchmark_measures_everything_and_names_what_it_missed():
    small = ("--rows", "500", "--trials", "256", "--images", "2", "--late", "250")
    done = run("evaluation.py", *small)
    found = json.loads(done.stdout)
    limits = {
        "nested_trials_per_float_evaluation": lambda value: value >= 2.0,
        "random_trials_per_float_evaluation": lambda value: value >= 1.2,
        "ms_outside_sampler_and_model": lambda value: value <= 0.2,
        "time_at_trial_10000_over_100": lambda value: value <= 1.1,
        "resnet20_trials_per_float_evaluation": lambda value: value >= 0.8,
        "digits_cnn_trials_per_float_evaluation": lambda value: value >= 0.8,
    }
    missed = [name for name, holds in limits.items() if not holds(found[name])]
    assert done.returncode == (1 if missed else 0), done.stderr
    assert [name for name in limits if f"{name} is" in done.stderr] == missed
