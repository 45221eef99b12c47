"""Tables: what their numbers stand for, how a network sees them, and how one table is put as another."""

import json
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.arrangement import SchemasDiffer, arrangement
from mlpd.core.data.columns import Column, Schema
from mlpd.core.data.datasets import DataError, Dataset, open_dataset, write_dataset
from mlpd.core.data.encoding import Encoder, encoded, learned_columns
from mlpd.core.data.inspection import inspect_dataset
from mlpd.core.steps.examples import Examples
from safetensors.numpy import save_file

from .family import FAMILY

NAN = np.nan
COLUMNS = (
    Column("age"),
    Column("deck", "category", ("a", "b", "c")),
    Column("alone", "boolean"),
    Column("born", "date"),
)
ROWS = np.array([[20, 0, 1, 7.5], [NAN, 2, 0, 8], [40, NAN, 1, 9], [31, 1, 0, -3]], np.float32)
LABELS = np.array([0, 1, 1, 0])


def stored(path, rows=ROWS, columns=COLUMNS, **names):
    write_dataset(path, Dataset(rows, LABELS, None, Schema(columns, **names)))
    return inspect_dataset(path)


def test_a_table_is_read_as_it_was_written(tmp_path):
    info = stored(tmp_path / "a", class_names=("no", "yes", "perhaps"), target_names=("survived",))
    assert info.schema == Schema(COLUMNS, ("no", "yes", "perhaps"), ("survived",))
    assert info.class_row_counts == (2, 2, 0)
    assert (info.encoded_size, info.input_size) == (2 + 4 + 1 + 1, 4)
    assert [known.missing_count for known in info.statistics] == [1, 1, 0, 0]
    age = info.statistics[0]
    assert (age.minimum, age.maximum) == (20, 40)
    assert (age.mean, age.deviation) == pytest.approx((np.mean([20, 40, 31]), np.std([20, 40, 31])))
    again = open_dataset(tmp_path / "a")
    assert again.schema == info.schema
    assert np.array_equal(again.inputs, ROWS, equal_nan=True)


def test_statistics_of_many_blocks_are_those_of_all_rows(tmp_path):
    seed = 3
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    rows = random.normal(1e6, 3, size=(700_000, 8))
    rows[random.random(rows.shape) < 0.1] = NAN
    columns = tuple(Column(f"c{i}") for i in range(8))
    write_dataset(tmp_path / "a", Dataset(rows, np.zeros(len(rows), np.uint8), None, Schema(columns)))
    for own, known in zip(rows.T, inspect_dataset(tmp_path / "a").statistics, strict=True):
        assert known.missing_count == np.isnan(own).sum()
        assert (known.mean, known.deviation) == pytest.approx((np.nanmean(own), np.nanstd(own)), rel=1e-9)
        assert (known.minimum, known.maximum) == (np.nanmin(own), np.nanmax(own))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "float16"])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_median_is_numpy_s(dtype, count):
    seed = 11
    print(f"seed {seed}")
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3)).astype(dtype)
    columns = learned_columns([Column(name) for name in "abc"], rows, None)
    assert [column.missing_value for column in columns] == np.median(rows.astype(np.float64), axis=0).tolist()
    assert not any(column.marks_missing for column in columns)


def test_a_row_is_encoded_by_the_rows_that_were_trained_on():
    columns = learned_columns(COLUMNS, ROWS, np.array([0, 2]))
    assert [column.missing_value for column in columns] == [30, None, 1, 8.25]
    assert [column.marks_missing for column in columns] == [True, True, False, False]
    encoder = Encoder(columns)
    assert encoder.width == 8
    assert encoder(ROWS).tolist() == [
        [20, 0, 1, 0, 0, 0, 1, 7.5],
        [30, 1, 0, 0, 1, 0, 0, 8],
        [40, 0, 0, 0, 0, 1, 1, 9],
        [31, 0, 0, 1, 0, 0, 0, -3],
    ]
    assert encoder(ROWS).dtype == np.float32
    assert np.array_equal(encoded(encoder, ROWS), encoder(ROWS))
    unknown = np.array([[1, -1, 0, 0]])
    assert encoder(unknown).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
    assert encoder.fault(ROWS) is None
    missing = np.array([[1, 0, NAN, NAN]])
    assert encoder(missing).tolist() == [[1, 0, 1, 0, 0, 0, 1, 8.25]]


@pytest.mark.parametrize(
    ("row", "name", "rule"),
    [
        ([1, 3, 0, 0], "deck", "be the place of a category, -1 to 2"),
        ([1, 0.5, 0, 0], "deck", "be the place of a category, -1 to 2"),
        ([1, 0, 2, 0], "alone", "be 0 or 1"),
        ([np.inf, 0, 0, 0], "age", "be finite as float32"),
        ([1, 0, 0, 1e39], "born", "be finite as float32"),
    ],
)
def test_a_value_that_a_column_can_not_have_is_found(row, name, rule):
    encoder = Encoder(learned_columns(COLUMNS, ROWS, None))
    fault = encoder.fault(np.array([[1, 0, 0, 0], row], np.float64))
    assert fault
    assert (fault.row, fault.column.name, fault.rule) == (1, name, rule)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        (1, 3, "column 'deck' of inputs must be the place of a category, 0 to 2, got 3.0 at row 1"),
        (1, -1, "column 'deck' of inputs must be the place of a category, 0 to 2, got -1.0 at row 1"),
        (2, 0.5, "column 'alone' of inputs must be 0 or 1, got 0.5 at row 1"),
        (0, np.inf, "inputs must be finite as float32, got inf at row 1, column 0"),
    ],
)
def test_a_data_set_with_such_a_value_is_refused(tmp_path, column, value, sentence):
    rows = ROWS.copy()
    rows[1, column] = value
    with pytest.raises(DataError, match=sentence):
        stored(tmp_path / "a", rows)


def test_missing_values_need_columns(tmp_path):
    with pytest.raises(DataError, match="inputs must be finite as float32, got nan at row 1, column 0"):
        stored(tmp_path / "a", columns=())


def column(**said):
    return json.dumps([{"name": "a", "kind": "number"} | said, {"name": "b", "kind": "number"}])


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"columns": "[]"}, "columns must be a JSON list of 2 objects, one a column of the inputs, got 0"),
        ({"columns": "{"}, "columns must be a JSON list of 2 objects"),
        ({"columns": "[1, 2]"}, "columns must be a JSON list of 2 objects"),
        ({"columns": "[" * 100_000}, "columns must be a JSON list of 2 objects"),
        ({"columns": column(name="b")}, "with a distinct name, got 'b' twice"),
        ({"columns": column(name=3)}, "columns must be a JSON list of 2 objects"),
        ({"columns": column(name="a\n")}, "columns must hold printable texts of 1 to 256 characters"),
        ({"columns": column(kind="text")}, "column 'a' must be of a kind that is one of number, boolean, category, "),
        ({"columns": column(kind=[1])}, "column 'a' must be of a kind"),
        ({"columns": column(mean=3)}, "column 'a' must have name, kind and categories alone, got 'mean'"),
        ({"columns": column(categories=["x"])}, "must have categories if it is a category, and only then, got 1"),
        ({"columns": column(kind="category")}, "must have categories if it is a category, and only then, got 0"),
        ({"columns": column(kind="category", categories=["x", "x"])}, "distinct categories, got 'x' twice"),
        ({"columns": column(kind="category", categories=["x", 1])}, "must have a list of distinct categories"),
        ({"columns": column(kind="category", categories="xy")}, "must have a list of distinct categories"),
        ({"columns": column(), "input_names": '["a", "b"]'}, "input_names must be left out where there are columns"),
        ({"class_names": '["x"]'}, "class_names must have a name for each label, 2, got 1"),
        (
            {"class_names": '["x", "x"]'},
            "class_names must be a JSON list of distinct texts, one a class, got 'x' twice",
        ),
        ({"target_names": '["x", "y"]'}, "target_names must be a JSON list of 1 distinct texts"),
    ],
)
def test_a_schema_that_can_not_be_one_is_refused(tmp_path, metadata, sentence):
    save_file({"inputs": np.zeros((2, 2), np.float32), "labels": np.array([0, 1])}, tmp_path / "a", metadata)
    with pytest.raises(DataError) as caught:
        inspect_dataset(tmp_path / "a")
    assert sentence in str(caught.value)


def test_names_of_classes_need_labels(tmp_path):
    tensors = {"inputs": np.zeros((2, 2), np.float32), "targets": np.zeros((2, 1), np.float32)}
    save_file(tensors, tmp_path / "a", {"class_names": '["x", "y"]'})
    with pytest.raises(DataError, match="class_names must be left out where there are no labels"):
        inspect_dataset(tmp_path / "a")


WANTED = Schema((Column("age"), Column("deck", "category", ("a", "b", "c"))), ("no", "yes"))


def test_a_table_is_put_as_another_by_its_names():
    found = Schema((Column("deck", "category", ("c", "x", "a")), Column("age")), ("yes", "no"))
    how = arrangement(found, WANTED)
    rows = np.array([[0, 20], [1, 30], [NAN, 40], [2, NAN]], np.float32)
    expected = np.array([[20, 2], [30, -1], [40, NAN], [NAN, 0]])
    assert np.array_equal(how.inputs(rows), expected, equal_nan=True)
    assert how.inputs(rows.astype(np.float64)).dtype == np.float64
    assert how.targets(np.array([0, 1, 1])).tolist() == [1, 0, 0]
    turned = arrangement(Schema((), (), ("p", "q", "r")), Schema((), (), ("r", "p", "q")))
    assert turned.targets(np.array([[1, 2, 3], [4, 5, 6]])).tolist() == [[3, 1, 2], [6, 4, 5]]
    same = arrangement(WANTED, WANTED)
    assert same.inputs(rows) is rows
    assert arrangement(Schema((Column("a"), Column("b"))), Schema()).order is None


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Schema((Column("age"),)), "lacks 'deck'"),
        (Schema((Column("age"), Column("deck", "number"))), "has a number in 'deck', not a category"),
        (Schema((*WANTED.columns, Column("x"))), "has also 'x'"),
        (Schema(), "has no names for its columns, while 'deck' is not a plain number"),
        (Schema(WANTED.columns, ("no", "perhaps")), "has also 'perhaps'"),
    ],
)
def test_tables_that_differ_are_told_apart(found, sentence):
    with pytest.raises(SchemasDiffer) as caught:
        arrangement(found, WANTED, (1, 1))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (WANTED, "has a category in 'deck', and columns without names are numbers"),
        (Schema((), ("1", "2")), "has classes called '1', '2', and these go by number"),
        (Schema((), ("-1", "1")), "has classes called '-1', '1', and these go by number"),
    ],
)
def test_places_do_not_count_for_numbers_that_are_names_and_categories_of_columns_without_names(found, sentence):
    with pytest.raises(SchemasDiffer) as caught:
        arrangement(found, Schema(), (1, 1))
    assert str(caught.value) == sentence


def test_targets_of_other_names_are_refused():
    for found, sentence in ((("p", "x"), "lacks 'q' and has also 'x'"), (("q",), "lacks 'p'")):
        with pytest.raises(SchemasDiffer) as caught:
            arrangement(Schema((), (), found), Schema((), (), ("p", "q")))
        assert (str(caught.value), caught.value.what) == (sentence, "targets")
    assert arrangement(Schema(), Schema((), (), ("p", "q"))).target_order is None


def test_numbers_are_not_taken_for_classes_whose_names_are_other_numbers():
    with pytest.raises(SchemasDiffer, match="has classes without names, and its 1 would count as '2'") as caught:
        arrangement(Schema(), Schema((), ("0", "2", "other")), (1, 1))
    assert caught.value.what == "classes"
    assert arrangement(Schema(), Schema((), ("0", "1", "3")), (1, 1)).labels is None
    assert arrangement(Schema(), Schema((), ("no", "yes")), (1, 1)).labels is None


def test_classes_of_names_that_say_nothing_else_go_by_their_places():
    for names in (("0", "1"), ("no", "yes")):
        assert arrangement(Schema((), names), Schema()).labels is None


def test_a_run_refuses_rows_of_a_class_that_it_does_not_train_on():
    columns = (Column("a"), Column("b"))
    rows, spec = np.arange(12, dtype=np.float32).reshape(6, 2), FAMILY["sgd"].spec
    train = Dataset(rows, np.array([0, 1, 0, 1, 0, 1]), None, Schema(columns, ("no", "yes")))
    other = Dataset(rows, np.array([0, 1, 0, 1, 0, 0]), None, Schema(columns, ("no", "perhaps")))
    with pytest.raises(SchemasDiffer, match="has also 'perhaps'"):
        Examples.of(spec, train, other)
    assert Examples.of(spec, train, replace(other, targets=np.zeros(6, np.int64))).validation
