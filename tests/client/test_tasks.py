"""What users of each kind of data do, from arrays and files to scores and predictions."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlpd.client import Client, InvalidRequest, training_spec

from ..command_line import run

RANDOM = np.random.default_rng(12)
X = RANDOM.normal(size=(240, 3))
Y = X @ [2.0, -1.0, 0.5] + 3
RUN: dict[str, Any] = {"batch_size": 32, "epoch_count": 40, "optimizer": "adam", "learning_rate": 0.02, "seed": 4}


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def line(client):
    """A regression model of one output."""
    client.upload("line", X, targets=Y, weights=np.full(240, 2))
    spec = training_spec(layer_sizes=[3, 16, 1], train_dataset="line", standardize=True, **RUN)
    return client.wait(client.train(spec, model_id="line")).model_version


def test_a_regression_model_scores_and_predicts_numbers(client, line):
    evaluation = client.evaluate(line, (X, Y), include_scores=True)
    assert evaluation.accuracy is evaluation.correct_count is evaluation.confusion is None
    assert evaluation.metrics["r2"] > 0.95
    prediction = client.predict(line, X)
    assert prediction.values.shape == (240, 1)
    assert (len(prediction.classes), len(prediction.probabilities)) == (0, 0)
    residual = ((prediction.values[:, 0] - Y) ** 2).sum() / ((Y - Y.mean()) ** 2).sum()
    assert 1 - residual == pytest.approx(evaluation.metrics["r2"], abs=1e-6)


def test_stored_rows_and_sent_rows_score_the_same(client, line):
    stored, sent = client.evaluate(line, "line"), client.evaluate(line, (X, Y[:, None]))
    assert stored.loss == pytest.approx(sent.loss, rel=1e-6)
    assert client.dataset("line").weighted


def test_targets_are_scored_by_their_names(client):
    targets = pd.DataFrame({"price": Y, "size": X[:, 0] > 0})
    turned = targets[["size", "price"]]
    client.upload("two", X, targets=targets.astype(float))
    stored = client.upload("two-turned", X, targets=turned)
    assert list(stored.target_names) == ["size", "price"]
    spec = training_spec(layer_sizes=[3, 16, 2], train_dataset="two", test_dataset="two-turned", **RUN)
    job = client.wait(client.train(spec))
    model = job.model_version
    loss = client.evaluate(model, "two").loss
    assert client.evaluate(model, "two-turned").loss == pytest.approx(loss, rel=1e-6)
    for own in (targets, turned, np.asarray(targets, float)):
        assert client.evaluate(model, (X, own)).loss == pytest.approx(loss, rel=1e-6)
    reports = [event.metrics_recorded for event in client.progress(job) if event.HasField("metrics_recorded")]
    assert reports[-1].loss == pytest.approx(loss, rel=1e-6)
    client.upload("two-others", X, targets=targets.rename(columns={"size": "weight"}))
    with pytest.raises(InvalidRequest, match=r"dataset must have the targets of .*, but it lacks 'size' and has also"):
        client.evaluate(model, "two-others")
    with pytest.raises(InvalidRequest, match=r"targets must have the columns of .*, but it lacks price"):
        client.evaluate(model, (X, turned[["size"]]))


def test_labels_that_do_not_exclude_each_other(client):
    targets = np.stack([Y > 3, X[:, 0] > 0], axis=1)
    client.upload("signs", X, targets=targets)
    spec = training_spec(layer_sizes=[3, 16, 2], train_dataset="signs", **RUN)
    model = client.wait(client.train(spec)).model_version
    prediction = client.predict(model, X)
    assert prediction.classes.shape == prediction.probabilities.shape == (240, 2)
    evaluation = client.evaluate(model, (X, targets), include_scores=True)
    assert evaluation.accuracy == (prediction.classes == targets).all(axis=1).mean() > 0.85
    assert [scores.row_count for scores in evaluation.classes] == targets.sum(axis=0).tolist()


def test_a_model_learns_on_from_new_rows(client, line):
    shifted = Y + 1
    client.upload("line-shifted", X, targets=shifted)
    spec = training_spec(train_dataset="line-shifted", warm_start="line", warm_start_scope="full", **RUN)
    job = client.wait(client.train(spec, model_id="line-2"))
    assert job.spec.warm_start.model == line
    assert client.evaluate(job.model_version, (X, shifted)).loss < client.evaluate(line, (X, shifted)).loss


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "labels or targets must be given, and not both"),
        ({"labels": np.zeros(240), "targets": Y}, "labels or targets must be given, and not both"),
        ({"targets": Y[:5]}, "targets must be (240, outputs), got the shape (5, 1)"),
        ({"targets": np.full(240, np.nan)}, "targets must be finite as float32, got nan at row 0, column 0"),
        ({"targets": ["a"] * 240}, "targets must be numbers, got <U1"),
        ({"targets": Y, "weights": np.ones(3)}, "weights must be (240,) numbers, got float64 of the shape (3,)"),
        ({"targets": Y, "weights": -np.ones(240)}, "weights must be finite and at least 0, got -1.0 at row 0"),
    ],
)
def test_arrays_that_can_not_be_stored_get_one_sentence(client, arguments, sentence):
    with pytest.raises(InvalidRequest) as caught:
        client.upload("no", X, **arguments)
    assert sentence in str(caught.value)


def test_a_csv_of_numbers_from_the_command_line_to_predictions(server, tmp_path):
    table = np.column_stack([X, Y, np.ones(240)])
    np.savetxt(tmp_path / "rows.csv", table, "%.9g", ",", header="a,b,c,price,w", comments="")
    flags = ["--target", "price", "--weight", "w"]
    done = run("datasets", "add", "prices", tmp_path / "rows.csv", *flags, server=server)
    assert (done.returncode, "1 numbers" in done.stdout) == (0, True), done.stderr
    flags = [
        "--layer-sizes",
        "3,16,1",
        "--activation",
        "silu",
        "--validation-fraction",
        "0.2",
        "--early-stopping-patience",
        "8",
    ]
    flags += [
        "--epoch-count",
        "60",
        "--batch-size",
        "16",
        "--optimizer",
        "adamw",
        "--learning-rate",
        "0.02",
        "--standardize",
        "--clip-norm",
        "5",
    ]
    done = run("train", "--train-dataset", "prices", *flags, "--model-id", "prices", "--wait", "--json", server=server)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["job"]["spec"]["model"]["activations"] == ["silu"]
    assert result["validation_loss"] < 0.5
    done = run("evaluate", "prices", "prices", "--scores", "--json", server=server)
    assert json.loads(done.stdout)["metrics"]["r2"] > 0.9
    assert "root mean squared error" in run("evaluate", "prices", "prices", "--scores", server=server).stdout
    np.save(tmp_path / "rows.npy", X)
    out = tmp_path / "out.csv"
    done = run("predict", "prices", tmp_path / "rows.npy", "--output", out, server=server)
    assert "price" in done.stdout
    assert out.read_text().splitlines()[0] == "price"
    predicted = np.loadtxt(out, delimiter=",", skiprows=1)
    assert np.corrcoef(predicted, Y)[0, 1] > 0.95


def test_flags_of_the_wrong_form_get_one_sentence(server):
    for flags, sentence in (
        (["--dropout", "a"], "--dropout must be numbers with commas, like 0.1,0.2, got a"),
        (["--class-weights", "1;2"], "--class-weights must be numbers with commas, like 0.1,0.2, got 1;2"),
        (["--activation", "swish"], "must be one of identity, relu"),
    ):
        done = run("train", "--preset", "default", *flags, server=server)
        assert done.returncode != 0
        assert sentence in " ".join(done.stderr.split())


def test_a_schedule_joined_of_others_comes_from_a_file(server, tmp_path):
    (tmp_path / "run.toml").write_text(
        'layer_sizes = [784, 8, 10]\ntrain_dataset = "mnist-test"\nepoch_count = 1\nlearning_rate = 0.1\n'
        'class_weights = "balanced"\n'
        "[[schedule]]\n"
        'schedule = "polynomial"\ninitial_share = 0.1\nfinal_share = 1.0\nstep_count = 3\n'
        "[[schedule]]\n"
        'schedule = "exponential"\n'
    )
    flags = ["--config", tmp_path / "run.toml", "--batch-size", 500, "--wait", "--json"]
    done = run("train", *flags, server=server)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)["job"]["spec"]
    first, second = (part["schedule"] for part in spec["schedule"]["joined"]["segments"])
    assert ("polynomial" in first, "exponential" in second, "exponential" in first) == (True, True, False)
    assert len(spec["loss"]["class_weights"]) == 10
