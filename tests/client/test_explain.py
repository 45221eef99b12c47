"""``mlpd explain``: a step's kernels, from its plan."""

import json

import pytest
from mlpd.client import Client

from ..command_line import run
from ..conftest import needs_compiler

SMALL = ("--train-dataset", "rings", "--layer-sizes", "2,40,3", "--batch-size", "32", "--epoch-count", "1")
STEP = ("--learning-rate", "0.1", "--optimizer", "adam", "--threads", "2")
PRODUCTS = 2 * 32 * (2 * 2 * 40 + 3 * 40 * 3)  # forward and back, but for the gradient of the inputs


@pytest.fixture
def explainable(server, rings):
    with Client(server.address) as client:
        client.upload("rings", *rings)
    return server


def explained(server, *settings):
    done = run("explain", *SMALL, *STEP, *settings, "--json", server=server)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def products(answer):
    return sum(
        line["call_count"] * line["operations"]
        for line in answer["lines"]
        if line["name"] in ("product", "matmul", "add_product")
    )


@needs_compiler
@pytest.mark.parametrize(("split", "phases"), [("units", 3), ("rows", 2)])
def test_it_counts_the_operations_of_a_compiled_step_and_tells_its_phases(explainable, split, phases):
    answer = explained(explainable, "--runner", "compiled", "--split", split, "--block-count", "4")
    assert (answer["runner"], answer["split"], answer["block_count"]) == ("compiled", split, 4)
    assert products(answer) == PRODUCTS
    names = list(dict.fromkeys(line["phase"] for line in answer["lines"]))
    assert names == ["rows", *(f"phase {number}" for number in range(1, phases + 1))]
    assert answer["operations"] > PRODUCTS
    assert 0 < answer["step_seconds"] < 1
    assert any("sqrt" in line["name"] for line in answer["lines"] if line["phase"] == f"phase {phases}")


def test_a_plain_step_is_told_call_by_call(explainable):
    answer = explained(explainable, "--runner", "plain")
    assert (answer["runner"], answer["block_count"], answer["thread_count"]) == ("plain", 1, 1)
    assert products(answer) == PRODUCTS
    assert {"gather", "maximum", "argmax", "sqrt"} <= {line["name"] for line in answer["lines"]}


@needs_compiler
def test_it_prints_a_table_and_a_sentence(explainable):
    done = run("explain", *SMALL, *STEP, server=explainable)
    assert done.returncode == 0, done.stderr
    assert "product" in done.stdout
    assert "A step of 32 rows, compiled, in " in done.stdout


def test_a_setting_that_is_wrong_is_named_as_by_train(explainable):
    done = run("explain", *SMALL, *STEP, "--block-count", "99", server=explainable)
    assert done.returncode == 1
    assert "block_count must be between 1 and" in done.stderr


def test_a_file_of_a_job_is_explained_whatever_else_it_says(explainable, tmp_path):
    lines = ['train_dataset = "rings"', "layer_sizes = [2, 40, 3]", "batch_size = 32", "epoch_count = 1"]
    lines += ['optimizer = "adam"', "learning_rate = 0.1", 'runner = "plain"', 'job_id = "one"', 'model_id = "digits"']
    (tmp_path / "job.toml").write_text("\n".join(lines))
    done = run("explain", "--config", tmp_path / "job.toml", "--json", server=explainable)
    assert done.returncode == 0, done.stderr
    assert products(json.loads(done.stdout)) == PRODUCTS
