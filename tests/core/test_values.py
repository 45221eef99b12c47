"""What is known of a data set's values and columns: found in them, whatever type they are stored in."""

import json

import numpy as np
import pytest
from mlpd.core.data import datasets as data
from mlpd.core.data.columns import Column, Schema
from mlpd.core.data.datasets import DataError, Dataset, open_dataset, write_dataset
from mlpd.core.data.inspection import default_input_scale, inspect_dataset
from safetensors.numpy import save

TYPES = ["uint8", "int32", "int64", "float16", "float32", "float64"]
PIXELS = np.array([[0, 255, 3], [17, 0, 128]])
LABELS = np.array([0, 1])


def info_of(path, inputs, targets=LABELS, names=()):
    write_dataset(path, Dataset(inputs, targets, None, Schema(tuple(map(Column, names)))))
    return inspect_dataset(path)


@pytest.mark.parametrize("dtype", TYPES)
def test_pixels_are_known_by_their_values_in_every_type(tmp_path, dtype):
    info = info_of(tmp_path / "a", PIXELS.astype(dtype))
    assert (info.input_range, info.whole_inputs) == ((0.0, 255.0), True)
    assert default_input_scale(info) == 1 / 255


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("values", [[[0, 1]], [[0, 254]], [[1, 255]], [[0, 16]], [[0, 0]]])
def test_all_other_numbers_are_taken_as_they_are_in_every_type(tmp_path, dtype, values):
    info = info_of(tmp_path / "a", np.repeat(np.array(values, dtype), 2, axis=0))
    assert info.input_range == (values[0][0], values[0][1])
    assert info.whole_inputs
    assert default_input_scale(info) == 1.0


@pytest.mark.parametrize("values", [[0, 255, 0.5], [0, 256, 1], [-1, 255, 0]])
def test_numbers_that_only_nearly_are_pixels_are_taken_as_they_are(tmp_path, values):
    assert default_input_scale(info_of(tmp_path / "a", np.array([values, values], float))) == 1.0


def test_every_block_of_a_large_file_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_BLOCK_VALUES", 6)
    inputs = np.zeros((9, 3))
    inputs[4, 1], inputs[8, 2] = 255, -0.5
    info = info_of(tmp_path / "a", inputs, np.arange(9) % 2)
    assert (info.input_range, info.whole_inputs) == ((-0.5, 255.0), False)


@pytest.mark.parametrize(
    ("targets", "span", "whole"), [([[0, 1], [1, 1]], (0, 1), True), ([[0.5, 1], [0, 3]], (0, 3), False)]
)
def test_targets_are_looked_at_in_the_same_way(tmp_path, targets, span, whole):
    info = info_of(tmp_path / "a", PIXELS, np.array(targets, "float64"))
    assert (info.target_range, info.whole_targets) == (span, whole)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("länge", "幅", "0"), tuple("abcdefgh"), ()])
def test_names_of_columns_come_back_from_the_file(tmp_path, names):
    inputs = np.zeros((2, len(names) or 3))
    assert info_of(tmp_path / "a", inputs, names=names).schema.input_names == names
    assert open_dataset(tmp_path / "a").schema.input_names == names


def test_thousands_of_columns_can_have_names(tmp_path):
    names = tuple(f"a column with a longer name, number {i}" for i in range(8000))
    assert info_of(tmp_path / "a", np.zeros((2, 8000), np.uint8), names=names).schema.input_names == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('["a", "b"]', "input_names must be a JSON list of 3 distinct texts, one a column of the inputs, got 2"),
        ('["a", "b", "a"]', "got 'a' twice"),
        ('["a", "b", ""]', "input_names must hold printable texts of 1 to 256 characters, got ''"),
        (json.dumps(["a", "b", "x" * 257]), "of 1 to 256 characters, got 'xxx"),
        (json.dumps(["a", "b", "c\x1b[2J"]), r"got 'c\x1b[2J'"),
        ('["a", "b", "\\ud800"]', r"got '\ud800'"),
        ('["a", "b", 3]', "input_names must be a JSON list of 3 distinct texts"),
        ('{"a": 1}', "input_names must be a JSON list of 3 distinct texts"),
        ("a, b, c", "input_names must be a JSON list of 3 distinct texts"),
        ("[" * 100_000, "input_names must be a JSON list of 3 distinct texts"),
    ],
)
def test_names_that_can_not_tell_columns_apart_are_refused(tmp_path, text, sentence):
    content = save({"inputs": np.zeros((2, 3)), "labels": LABELS}, {"input_names": text})
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError) as caught:
        inspect_dataset(tmp_path / "a")
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300


def test_other_metadata_are_nobodys_business(tmp_path):
    (tmp_path / "a").write_bytes(save({"inputs": np.zeros((2, 3)), "labels": LABELS}, {"format": "np"}))
    assert inspect_dataset(tmp_path / "a").schema.input_names == ()
