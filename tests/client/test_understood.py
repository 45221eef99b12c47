"""The command line says what it understood of files and columns, and asks where it can't know."""

import json
from typing import Any

import numpy as np
import pytest
from mlpd.client import Client, training_spec
from mlpd.client.cli import app
from mlpd.client.errors import InvalidRequest
from sklearn.datasets import load_iris

RUN = ["--layer-sizes", "4,16,3", "--standardize", "--batch-size", 16, "--epoch-count", 40, "--optimizer", "adam",
       "--learning-rate", 0.01, "--seed", 1]  # fmt: skip
HEADER = "sepal_length,sepal_width,petal_length,petal_width,species"


@pytest.fixture
def mlpd(server, capsys):
    """Run a command in this process; return what it prints, as an object with --json."""

    def run(*arguments) -> Any:
        capsys.readouterr()
        app([*map(str, arguments), "--server", server.address], standalone_mode=False)
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in arguments else printed

    return run


@pytest.fixture
def refused(mlpd):
    def run(*arguments):
        with pytest.raises(InvalidRequest) as caught:
            mlpd(*arguments)
        return caught.value.message

    return run


@pytest.fixture(scope="module")
def flowers():
    inputs, species = load_iris(return_X_y=True)
    return np.column_stack([inputs, species])


@pytest.fixture
def write(tmp_path):
    def write(name, table, header=""):
        np.savetxt(tmp_path / name, table, "%g", ",", header=header, comments="")
        return tmp_path / name

    return write


def trained(mlpd, name):
    return mlpd("train", "--train-dataset", name, *RUN, "--model-id", name, "--wait", "--json")


def test_columns_in_another_order_give_the_same_answers(mlpd, refused, write, flowers):
    mlpd("datasets", "add", "iris", write("iris.csv", flowers, HEADER))
    trained(mlpd, "iris")
    order = [4, 2, 0, 3, 1]
    turned = write("turned.csv", flowers[:, order], ",".join(HEADER.split(",")[place] for place in order))
    answer = mlpd("predict", "iris", turned, "--json")
    assert (np.array(answer["classes"]) == flowers[:, 4]).mean() >= 0.96
    assert answer["understood"] == {
        "input_names": HEADER.split(",")[:4], "left_out": ["species"], "header": True,
    }  # fmt: skip
    said = mlpd("predict", "iris", turned)
    assert "the first line of turned.csv names the columns" in said
    assert "left out: species" in said
    mlpd("datasets", "add", "iris-turned", turned, "--target", "species")
    assert mlpd("evaluate", "iris", "iris-turned", "--json")["accuracy"] >= 0.96
    assert "the columns of iris-turned are matched by name with models/iris/versions/1" in mlpd(
        "evaluate", "iris", "iris-turned"
    )
    lacking = write("lacking.csv", flowers[:, [1, 2, 3]], "sepal_width,petal_length,petal_width")
    sentence = "lacking.csv must have the columns of models/iris/versions/1, but it lacks sepal_length"
    assert sentence in refused("predict", "iris", lacking)
    said = mlpd("predict", "iris", write("rows.csv", flowers[:, :4]))
    assert "the first line of rows.csv is a row" in said
    assert "columns are taken in their order, since rows.csv has no names of columns" in said


def test_a_header_of_numbers_is_not_taken_for_a_row(mlpd, refused, write, flowers):
    path = write("numbered.csv", flowers, "0,1,2,3,4")
    assert "can be a header or a row: say which, with --header or --no-header" in refused("datasets", "add", "no", path)
    stored = mlpd("datasets", "add", "counted", path, "--header", "--json")
    assert (stored["dataset"]["row_count"], stored["dataset"]["class_count"]) == (150, 3)
    assert stored["understood"] == {
        "input_names": ["0", "1", "2", "3"], "left_out": [], "header": True, "labels": ["4"],
    }  # fmt: skip
    assert mlpd("datasets", "add", "counted-rows", path, "--no-header", "--json")["dataset"]["row_count"] == 151
    trained(mlpd, "counted")
    rows = write("numbered-rows.csv", flowers[:, :4], "0,1,2,3")
    assert "can be a header or a row" in refused("predict", "counted", rows)
    assert len(mlpd("predict", "counted", rows, "--header", "--json")["classes"]) == 150


def test_what_was_understood_is_said(mlpd, write, flowers):
    table = np.column_stack([np.arange(150), flowers, np.ones(150)])
    path = write("index.csv", table, f",{HEADER},w")
    said = mlpd("datasets", "add", "said", path, "--target", "species", "--weight", "w")
    for text in (
        "150 rows of 4 inputs: sepal_length, sepal_width, petal_length, petal_width",
        "labels from species",
        "weights from w",
        "the first line of index.csv names the columns",
        "left out: a column without a name",
        "3 classes",
    ):
        assert text in said
    said = mlpd("datasets", "show", "said")
    assert all(name in said for name in ("sepal_length", "sepal_width", "petal_length", "petal_width"))
    assert "inputs: from 0.1 to 7.9" in said


def test_the_same_pixels_train_the_same_model_from_every_file(mlpd, tmp_path, write):
    random = np.random.default_rng(5)
    pixels, labels = random.integers(0, 256, (200, 12)), np.arange(200) % 2
    pixels[0, :2] = 0, 255
    pixels[labels == 1, :4] //= 3
    np.savez(tmp_path / "pixels.npz", inputs=pixels.astype(np.uint8), labels=labels)
    files = {
        "pixels-csv": write("pixels.csv", np.column_stack([pixels, labels])),
        "pixels-npz": tmp_path / "pixels.npz",
    }
    note = "inputs are multiplied by 1/255: whole numbers from 0 to 255, as pixels are; --input-scale 1 leaves them as they are"
    flags = ["--layer-sizes", "12,8,2", "--batch-size", 20, "--epoch-count", 2, "--learning-rate", 0.1, "--seed", 1]
    digests = set()
    for name, path in files.items():
        assert note in mlpd("datasets", "add", name, path, "--json")["notes"]
        assert note in mlpd("datasets", "show", name)
        result = mlpd("train", "--train-dataset", name, *flags, "--wait", "--json")
        assert result["job"]["spec"]["model"]["input_scale"] == 1 / 255
        assert result["notes"] == ["task multiclass, by the data", note]
        digests.add(result["parameters_sha256"])
    assert len(digests) == 1


def test_numbers_that_are_nearly_pixels_are_said_to_be_taken_as_they_are(mlpd, tmp_path, server):
    inputs = np.full((20, 3), 254, np.uint8)
    inputs[0] = 0
    np.savez(tmp_path / "nearly.npz", inputs=inputs, labels=np.arange(20) % 2)
    note = "inputs are taken as they are: whole numbers from 0 to 254, not from 0 to 255 as pixels are; --input-scale 0.003921569"
    assert note in mlpd("datasets", "add", "nearly", tmp_path / "nearly.npz")
    flags = [
        "--train-dataset",
        "nearly",
        "--layer-sizes",
        "3,2",
        "--epoch-count",
        1,
        "--learning-rate",
        0.1,
        "--optimizer",
        "sgd",
    ]
    submitted = mlpd("train", *flags, "--no-wait", "--json")
    assert any(note in said for said in submitted["notes"])
    assert submitted["job"]["spec"]["model"]["input_scale"] == 1
    with Client(server.address) as client:
        client.wait(submitted["job"]["name"])


def test_the_task_is_said_and_is_that_of_the_values(mlpd, server, tmp_path, write):
    inputs, signs = np.random.default_rng(6).normal(size=(30, 2)), np.arange(60).reshape(30, 2) % 3 % 2
    np.savez(tmp_path / "signs.npz", inputs=inputs, targets=signs.astype(np.uint8))
    table = write("signs.csv", np.column_stack([inputs, signs]), "a,b,t,u")
    mlpd("datasets", "add", "signs-npz", tmp_path / "signs.npz")
    mlpd("datasets", "add", "signs-csv", table, "--target", "t,u")
    flags = ["--layer-sizes", "2,2", "--epoch-count", 1, "--learning-rate", 0.1, "--wait", "--json"]
    result = mlpd("train", "--train-dataset", "signs-csv", *flags)
    assert (result["job"]["spec"]["task"], result["notes"][0]) == ("multilabel", "task multilabel, by the data")
    with Client(server.address) as client:
        spec = training_spec(train_dataset="signs-npz", layer_sizes=[2, 2], epoch_count=1, learning_rate=0.1)
        assert client.resolve(spec).task == "multilabel"
