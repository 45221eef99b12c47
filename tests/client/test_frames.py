"""Data frames: their columns go by name, from the data set to the model to what it predicts."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlpd.client import Client, InvalidRequest, training_spec
from sklearn.datasets import load_iris

NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
TURNED = [NAMES[place] for place in (2, 0, 3, 1)]
RUN: dict[str, Any] = {
    "layer_sizes": [4, 16, 3],
    "train_dataset": "frame",
    "standardize": True,
    "batch_size": 16,
    "epoch_count": 40,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "seed": 1,
}


class Frame:
    """The least that a frame of any library has."""

    def __init__(self, frame):
        self.columns = list(frame.columns)
        self._frame = frame

    def __getitem__(self, name):
        return self._frame[name].to_numpy()


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).frame


@pytest.fixture(scope="module")
def model(client, iris):
    stored = client.upload("frame", iris[NAMES], iris["target"])
    assert list(stored.input_names) == NAMES
    return client.wait(client.train(training_spec(**RUN), model_id="frame")).model_version


@pytest.mark.parametrize("kind", [pd.DataFrame, Frame])
def test_columns_in_another_order_are_matched_by_name(client, iris, model, kind):
    expected = client.predict(model, iris[NAMES].to_numpy())
    assert (expected.classes == iris["target"]).mean() >= 0.95
    assert np.array_equal(client.predict("frame", kind(iris[TURNED])).logits, expected.logits)
    scored = client.evaluate(model, (kind(iris[TURNED]), iris["target"]))
    assert scored.correct_count == (expected.classes == iris["target"]).sum()
    client.upload("frame-turned", kind(iris[TURNED]), iris["target"])
    assert client.evaluate(model, "frame-turned").correct_count == scored.correct_count


def test_missing_and_other_columns_are_refused_by_name(client, iris, model):
    with pytest.raises(InvalidRequest, match=r"inputs must have only the columns of models/frame/.*, got also target"):
        client.predict(model, iris)
    with pytest.raises(InvalidRequest, match=r"inputs must have the columns of .* but it lacks petal width \(cm\)"):
        client.predict(model, iris[NAMES[:3]])
    with pytest.raises(InvalidRequest, match=r"it lacks sepal width \(cm\); it has sepal length \(cm\), height"):
        client.evaluate(model, (iris[NAMES].rename(columns={NAMES[1]: "height"}), iris["target"]))


def test_frames_whose_columns_are_only_numbered_have_no_names(client, iris, model):
    numbered = pd.DataFrame(iris[NAMES].to_numpy())
    assert np.array_equal(client.predict(model, numbered).logits, client.predict(model, iris[NAMES]).logits)
    assert not client.upload("frame-numbered", numbered, iris["target"]).input_names
    with pytest.raises(InvalidRequest, match="inputs must have columns that texts name, got 3"):
        client.predict(model, numbered[[3, 2, 1, 0]])


def test_columns_of_mixed_types_become_numbers(client, iris):
    mixed = pd.DataFrame({"wide": iris[NAMES[1]] > 3, "length": iris[NAMES[2]], "count": np.arange(150, dtype="int16")})
    stored = client.upload("frame-mixed", mixed, iris["target"])
    assert (stored.input_size, stored.input_maximum, list(stored.input_names)) == (3, 149, ["wide", "length", "count"])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("kind", [["setosa"]] * 150, "inputs, column kind, must hold numbers, true or false, texts or dates, got list"),
        ("Unnamed: 0", 1, "inputs must have a name for each column, got 'Unnamed: 0'; leave it out if an index"),
        ("a\nb", 1, r"inputs must have names that are printable texts of 1 to 256 characters, got 'a\\nb'"),
        (7, 1, "inputs must have columns that texts name, got 7"),
    ],
)
def test_frames_that_can_not_be_stored_get_one_sentence(client, iris, name, value, sentence):
    frame = iris[NAMES].copy()
    frame[name] = value
    with pytest.raises(InvalidRequest, match=sentence):
        client.upload("no", frame, iris["target"])


def test_a_name_that_comes_twice_is_refused(client, iris):
    with pytest.raises(InvalidRequest, match=r"inputs must name each column once, got 'sepal width \(cm\)' twice"):
        client.upload("no", iris[[NAMES[1], NAMES[0], NAMES[1]]], iris["target"])


def test_what_is_to_be_learned_is_not_left_among_the_inputs(client, iris):
    for settings, name in (
        ({"labels": iris["target"]}, "labels, got 'target'"),
        ({"targets": iris[[NAMES[0]]]}, "targets, got 'sepal length"),
        ({"targets": iris["target"].to_numpy(), "weights": iris[NAMES[3]]}, "weights, got 'petal width"),
    ):
        with pytest.raises(InvalidRequest, match=f"inputs must not have the columns of {name}.* in both"):
            client.upload("no", iris, **settings)


def test_arrays_can_be_given_names(client, iris, model):
    rows = iris[NAMES].to_numpy()
    stored = client.upload("frame-array", rows, iris["target"], input_names=NAMES)
    assert stored.sha256 == client.dataset("frame").sha256
    for names, sentence in (
        (NAMES[:3], "input_names must have one name a column, 4, got 3"),
        ([*NAMES[:3], NAMES[0]], r"input_names must name each column once, got 'sepal length \(cm\)' twice"),
        ([*NAMES[:3], ""], "input_names must have names that are printable"),
    ):
        with pytest.raises(InvalidRequest, match=sentence):
            client.upload("no", rows, iris["target"], input_names=names)
