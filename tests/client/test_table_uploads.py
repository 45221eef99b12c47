"""Tables on a real server: from a file or a frame to a data set, to a model, to what it predicts."""

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlpd.client import Client, InvalidRequest, NotFound, training_spec
from mlpd.client.tables import columns_from, read_labelled

from ..command_line import run

SEED = 4


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def passengers():
    """400 passengers, of whom those of a deck or a sex are saved; some lack values."""
    print(f"seed {SEED}")
    random = np.random.default_rng(SEED)
    sex, deck = random.choice(["male", "female"], 400), random.choice(["A", "B", "C"], 400)
    age = random.normal(30, 10, 400).round(1)
    frame = pd.DataFrame({"sex": sex, "deck": deck, "age": age, "alone": random.random(400) < 0.5})
    frame["saved"] = np.where((sex == "female") | (deck == "B"), "yes, saved", "no")
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "deck"] = None
    return frame


@pytest.fixture(scope="module")
def path(passengers, tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "passengers.csv"
    passengers.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def model(client, path):
    stored = client.upload("passengers", path, target="saved")
    assert list(stored.class_names) == ["no", "yes, saved"]
    spec = training_spec(
        layer_sizes=[stored.encoded_size, 16, 2], train_dataset="passengers", standardize=True, batch_size=20,
        epoch_count=40, optimizer="adam", learning_rate=0.01, seed=1,
    )  # fmt: skip
    return client.wait(client.train(spec, model_id="passengers")).model_version


def test_a_file_and_every_frame_of_it_are_one_data_set(client, passengers, model):
    known = client.dataset("passengers").sha256
    assert client.upload("passengers-pandas", passengers, target="saved").sha256 == known
    assert client.upload("passengers-polars", pl.from_pandas(passengers), target="saved").sha256 == known
    stored = client.dataset("passengers")
    assert [column.missing_count for column in stored.columns] == [0, 37, 58, 0]
    assert columns_from(stored.columns)[1].categories == ("A", "B", "C")
    assert list(stored.target_names) == ["saved"]


def test_labels_beside_a_frame_are_classes_by_name(client, passengers):
    stored = client.upload("passengers-beside", passengers.drop(columns="saved"), passengers["saved"])
    assert (list(stored.class_names), stored.class_count) == (["no", "yes, saved"], 2)
    stored = client.upload("passengers-texts", np.eye(3), ["cat", "dog", "cat"])
    assert list(stored.class_names) == ["cat", "dog"]


def test_frames_are_predicted_and_scored_as_the_model_has_them(client, passengers, model):
    inputs = passengers.drop(columns="saved")
    answers = client.predict(model, inputs)
    assert (answers.classes == (passengers["saved"] != "no")).mean() > 0.9
    turned = pl.from_pandas(inputs[["alone", "age", "sex", "deck"]])
    assert np.array_equal(client.predict(model, turned).logits, answers.logits)
    scored = client.evaluate(model, (inputs, passengers["saved"]))
    assert scored.correct_count == (answers.classes == (passengers["saved"] != "no")).sum()
    with pytest.raises(
        InvalidRequest,
        match="labels must be classes of models/passengers/versions/1, no, yes, saved, got maybe at row 1",
    ):
        client.evaluate(model, (inputs[:2], ["no", "maybe"]))
    with pytest.raises(InvalidRequest, match=r"inputs must have only the columns of .*, got also saved"):
        client.predict(model, passengers)


def test_a_category_that_the_model_has_not_seen_is_told(client, passengers, model):
    rows = passengers.drop(columns="saved").iloc[:3].assign(deck="T")
    with pytest.warns(UserWarning, match="3 rows have a deck that models/passengers/versions/1 has not seen: 'T'"):
        client.predict(model, rows)


def test_a_test_set_is_read_like_the_training_set(client, passengers, model, tmp_path):
    few = (
        passengers[passengers["deck"] == "C"]
        .iloc[::-1][["saved", "deck", "age", "alone", "sex"]]
        .assign(id=range(5, 5 + (passengers["deck"] == "C").sum()))
    )
    few.to_parquet(tmp_path / "few.parquet")
    stored = client.upload("passengers-few", tmp_path / "few.parquet", like="passengers")
    assert columns_from(stored.columns) == columns_from(client.dataset("passengers").columns)
    assert client.evaluate(model, "passengers-few").row_count == len(few)
    inputs = few.drop(columns=["saved", "id"])
    assert (
        client.evaluate(model, "passengers-few").correct_count
        == client.evaluate(model, (inputs, few["saved"])).correct_count
    )


def test_the_command_line_tells_what_it_understood(server, path, model):
    done = run("datasets", "add", "passengers-cli", path, "--target", "saved", server=server)
    assert done.returncode == 0, done.stderr
    for text in (
        "400 rows of 4 inputs: sex, deck, age, alone",
        "labels from saved",
        "categories: sex, deck",
        "booleans: alone",
        "values are missing: deck (37), age (58)",
    ):
        assert text in done.stdout
    said = run("datasets", "describe", "passengers-cli", server=server).stdout
    for text in ("category", "boolean", "A, B, C", "rows of each class of saved: no", "yes, saved"):
        assert text in said
    shown = json.loads(
        run("datasets", "add", "passengers-cli", path, "--target", "saved", "--json", server=server).stdout
    )
    assert shown["understood"]["columns"][0] == {"name": "sex", "kind": "category", "categories": ["female", "male"]}
    rest, found = path.with_name("rest.csv"), ["--target", "found", "--json"]
    rest.write_text(path.read_text().replace("saved", "found", 1))
    refused = run("evaluate", "passengers", rest, server=server)
    assert "rest.csv must have saved, as what is learnt is called in models/passengers/versions/1" in refused.stderr
    scores = json.loads(run("evaluate", "passengers", rest, *found, server=server).stdout)
    assert scores["row_count"] == 400
    refused = run("evaluate", "passengers", "passengers", *found, server=server)
    assert "target must be unset for a stored data set, got found" in refused.stdout
    rows = run("predict", "passengers", path, server=server).stdout
    assert "left out: saved" in rows


def test_a_column_that_is_left_out_is_warned_of(client, passengers):
    frame = passengers.assign(name=[f"name {row}" for row in range(400)])
    with pytest.warns(
        UserWarning, match="name is left out: 400 different texts in 400 rows; keep it with --category name"
    ):
        stored = client.upload("passengers-named", frame, target="saved")
    assert stored.sha256 == client.dataset("passengers").sha256
    assert client.upload("passengers-left", frame, target="saved", leave_out=["name"]).sha256 == stored.sha256


def test_nothing_is_stored_of_a_table_that_is_refused(client, passengers):
    frame = passengers.assign(saved=[None, *passengers["saved"][1:]])
    with pytest.raises(
        InvalidRequest, match="inputs, row 0, column saved, must have a value in every row, got none; 1 of 400"
    ):
        client.upload("passengers-refused", frame, target="saved")
    with pytest.raises(NotFound):
        client.dataset("passengers-refused")


@pytest.mark.parametrize(
    ("data", "settings", "sentence"),
    [
        (np.eye(3), {"labels": [0, 1, 2], "target": "a"}, "target must be unset with an array"),
        (np.eye(3), {}, "labels or targets must be given"),
        (pd.DataFrame({"a": [1, 2], "b": [0, 1]}), {"weights": [1, 2]}, "weights must be unset with a table"),
        (pd.DataFrame({"a": [1, 2], "b": [0, 1]}), {"task": "clustering"}, "task must be one of multiclass"),
        (pd.DataFrame({"a": [1, 2], "b": [0, 1]}), {"separator": ";"}, "separator must be unset for a frame"),
        ("nowhere.csv", {}, "nowhere.csv can't be read: there is no such file"),
        ("a.xlsx", {}, "a.xlsx can't be read: there is no such file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(client, data, settings: dict[str, Any], sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        client.upload("never", data, **settings)


def test_masked_and_sparse_arrays_and_those_of_other_libraries(client):
    scipy = pytest.importorskip("scipy.sparse")
    values = np.array([[0, 2.5], [3, 0], [1, 1]])
    labels = [0, 1, 0]
    plain = client.upload("array-plain", values, labels)
    assert client.upload("array-sparse", scipy.csr_array(values), labels).sha256 == plain.sha256

    class Tensor:
        """What any library's array has that speaks DLPack."""

        def __dlpack__(self, **settings):
            return values.__dlpack__(**settings)

        def __dlpack_device__(self):
            return values.__dlpack_device__()

    assert client.upload("array-tensor", Tensor(), labels).sha256 == plain.sha256
    masked = np.ma.masked_equal(values, 0)
    stored = client.upload("array-masked", masked, labels, input_names=["a", "b"])
    frame = pd.DataFrame({"a": [None, 3, 1], "b": [2.5, None, 1]})
    assert stored.sha256 == client.upload("array-frame", frame, labels).sha256
    with pytest.raises(InvalidRequest, match="inputs must have at most 1,073,741,824 bytes with all their zeros"):
        client.upload("never", scipy.csr_array((10**6, 10**6)), labels)
    with pytest.raises(InvalidRequest, match="inputs must be finite as float32, got nan at row 0, column 0"):
        client.upload("never", masked.filled(np.nan), labels)


def test_what_was_read_can_be_looked_at_and_then_sent(client, path):
    table = read_labelled(path, target="saved")
    assert (
        client.upload("passengers-read", table).sha256 == client.upload("passengers-again", path, target="saved").sha256
    )
