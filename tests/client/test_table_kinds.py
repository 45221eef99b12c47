"""What the cells of a column are, what is learnt, and that all formats and frames of a table are one data set."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from mlpd.client import InvalidRequest, tables
from mlpd.client.arrays import dataset_tensors, write_dataset
from mlpd.client.tables import Column, Schema, read_rows
from mlpd.client.tables.memory import understood
from safetensors.numpy import save

PASSENGERS = """survived,class,name,sex,age,fare,deck,alone,boarded
0,3,Owen,male,22,7.25,,yes,1912-04-10
1,1,Florence,female,38,71.2833,C,NO,1912-04-10 18:30
1,3,Laina,female,26,7.925,?,Yes,1912-04-11
0,3,Karl,male,NA,8.4583,,no,
1,2,Ada,female,14.5,30.0708,C,no,1912-04-11T12:00Z
"""


def frame():
    """The passengers as a frame of pandas with types of its own for them."""
    return pd.DataFrame(
        {
            "survived": [0, 1, 1, 0, 1],
            "class": [3, 1, 3, 3, 2],
            "name": ["Owen", "Florence", "Laina", "Karl", "Ada"],
            "sex": ["male", "female", "female", "male", "female"],
            "age": [22, 38, 26, np.nan, 14.5],
            "fare": [7.25, 71.2833, 7.925, 8.4583, 30.0708],
            "deck": [None, "C", None, None, "C"],
            "alone": [True, False, True, False, False],
            "boarded": pd.to_datetime(
                ["1912-04-10", "1912-04-10 18:30", "1912-04-11", None, "1912-04-11 12:00"], format="mixed"
            ),
        }
    )


def read_labelled(*arguments, **settings) -> Any:
    return tables.read_labelled(*arguments, **settings)


@pytest.fixture
def write(tmp_path):
    def write(text, name="a.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def stored(table, folder):
    """The digest and size of the data set's file, and its bytes."""
    path = folder / "stored.safetensors"
    return write_dataset(path, dataset_tensors(table), table.metadata()), path.read_bytes()


def as_parquet(folder):
    path = folder / "a.parquet"
    pa.parquet.write_table(pa.Table.from_pandas(frame()), path)
    return path


def as_feather(folder):
    path = folder / "a.feather"
    pa.feather.write_feather(frame(), path)
    return path


def as_json_lines(folder):
    table = frame().assign(boarded=lambda own: own["boarded"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    path = folder / "a.jsonl"
    table.to_json(path, orient="records", lines=True)
    return path


def as_csv(folder):
    path = folder / "b.csv"
    frame().to_csv(path, index=False)
    return path


FORMS = {
    "pandas": lambda folder: frame(),
    "pandas with an index": lambda folder: frame().set_index(pd.Index(list("vwxyz"))),
    "pandas categories": lambda folder: frame().astype({"sex": "category", "deck": "category", "age": "Float32"}),
    "polars": lambda folder: pl.from_pandas(frame()),
    "polars categories": lambda folder: pl.from_pandas(frame()).with_columns(pl.col("sex").cast(pl.Categorical)),
    "pyarrow": lambda folder: pa.Table.from_pandas(frame()),
    "interchange": lambda folder: Interchanged(pl.from_pandas(frame())),
    "parquet": as_parquet,
    "feather": as_feather,
    "json lines": as_json_lines,
    "csv of pandas": as_csv,
}


class Interchanged:
    """A frame that speaks the interchange protocol alone."""

    def __init__(self, table):
        self._frame = table.to_pandas()

    def __dataframe__(self, *arguments, **settings):
        return self._frame.__dataframe__(*arguments, **settings)


@pytest.mark.filterwarnings("ignore:The Dataframe Interchange Protocol")  # deprecated by pandas, and spoken by others
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_is_one_data_set(write, tmp_path, form):
    expected = stored(read_labelled(write(PASSENGERS), target="survived"), tmp_path)
    assert stored(read_labelled(FORMS[form](tmp_path), target="survived"), tmp_path) == expected


def test_each_column_is_what_its_cells_are(write):
    table = read_labelled(write(PASSENGERS), target="survived")
    assert table.columns == (
        Column("class"),
        Column("name", "category", ("Ada", "Florence", "Karl", "Laina", "Owen")),
        Column("sex", "category", ("female", "male")),
        Column("age"),
        Column("fare"),
        Column("deck", "category", ("C",)),
        Column("alone", "boolean"),
        Column("boarded", "date"),
    )
    assert table.inputs[1].tolist() == [1, 1, 0, 38, 71.2833, 0, 0, -21085 + 18.5 / 24]
    assert np.isnan(table.inputs).sum(axis=0).tolist() == [0, 0, 0, 1, 0, 3, 0, 1]
    assert np.array_equal(table.labels, [0, 1, 1, 0, 1])
    for note in (
        "categories: name, sex, deck",
        "booleans: alone",
        "dates: boarded",
        "values are missing: age (1), deck (3), boarded (1)",
        "always the same: deck",
    ):
        assert note in table.notes


def test_the_file_has_the_bytes_that_safetensors_writes(tmp_path):
    random = np.random.default_rng(3)
    for dtype in ("uint8", "int32", "int64", "float16", "float32", "float64"):
        for weights in ({}, {"weights": random.random(5)}):
            tensors = {"inputs": random.random((5, 3)).astype(dtype), "labels": np.arange(5), **weights}
            for metadata in ({}, {"input_names": '["é", "\\u2028\\"", "b"]'}):
                _, size = write_dataset(tmp_path / "a", tensors, metadata)
                expected = save(tensors, metadata or None)
                assert (tmp_path / "a").read_bytes() == expected
                assert size == len(expected)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ("1 2.5 -3e2 .5 5. +7", Column("a")),
        ("1 NA 2 ? 3", Column("a")),
        ("0 1 0", Column("a")),
        ("true FALSE True", Column("a", "boolean")),
        ("yes No YES NA", Column("a", "boolean")),
        ("y n y", Column("a", "category", ("n", "y"))),
        ("a b a 1", Column("a", "category", ("1", "a", "b"))),
        ("2026-11-27 2026-11-27T08:30 NA", Column("a", "date")),
        ("2026-11-27T08:30:15.5Z 2026-11-27T08:30+02:00", Column("a", "date")),
        ("1.2.3 10.0.0.1", Column("a", "category", ("1.2.3", "10.0.0.1"))),
        ("12:15 8:30", Column("a", "category", ("12:15", "8:30"))),
    ],
)
def test_a_kind_is_that_of_all_cells(write, cells, kind):
    lines = "".join(f"{cell},{place % 2}\n" for place, cell in enumerate(cells.split()))
    assert read_labelled(write(f"a,label\n{lines}b\n".replace("b\n", "", 0).removesuffix("b\n"))).columns in (
        (kind,),
        (),
    )


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ("1 2 x 3", "a.csv, line 4, column a, must be a number, got 'x'; if it is a category, say --category a"),
        (
            "1,5 2,5 3,5",
            "a.csv, line 2, column a, must be a plain number, like 1234.5, got '1,5'; if its comma is a decimal point, say --decimal ,",
        ),
        ("2026-11-27 2026-11-28 tomorrow", "line 4, column a, must be an ISO date, like 2026-11-27"),
        ("2026-11-27 2026-13-28 2026-11-29", "line 3, column a, must be an ISO date"),
        ("1 9007199254740993 3", "line 3, column a, must be a whole number that float64 holds exactly"),
        ("1 1e39 3", "line 3, column a, must be finite as float32, got '1e+39'"),
        ("1 inf 3", "line 3, column a, must be a number, got 'inf'"),
    ],
)
def test_a_cell_that_is_not_what_the_others_are_is_refused(write, cells, sentence):
    lines = "".join(f'"{cell}",{place % 2}\n' for place, cell in enumerate(cells.split()))
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(write(f"a,label\n{lines}"))
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        (["$5", "$1,200.50", "$ 7"], "must be a plain number, like 1234.5, got '$5'"),
        (["-€5", "7", "8 €"], "must be a plain number, like 1234.5, got '-€5'"),
        (["12%", "7 %"], "must be a plain number"),
        (["1 234", "1 234,5", "1'234.50"], "must be a plain number"),
        (["\u22125", "\u22127.5"], "must be a plain number"),
        (["27.11.2026", "28.11.2026"], "must be an ISO date, like 2026-11-27 or 2026-11-27 08:30, got '27.11.2026'"),
        (["11/27/2026", "1/2/26"], "must be an ISO date"),
        (["2026-1-5", "2026/01/06 8:30 PM"], "must be an ISO date"),
    ],
)
@pytest.mark.parametrize("is_target", [False, True])
def test_numbers_and_dates_as_people_write_them_are_no_texts(write, cells, rule, is_target):
    for times in (2, 30):
        lines = "".join(f'"{cell}";{place % 2}\n' for place, cell in enumerate(cells * times))
        path = write(f"a;b\n{lines}")
        with pytest.raises(InvalidRequest) as caught:
            read_labelled(path, target="a" if is_target else "b")
        assert f"a.csv, line 2, column a, {rule}" in caught.value.message
        assert "if it is a category, say --category a" in caught.value.message
        assert read_labelled(path, target="b", category=["a"]).columns[0].kind == "category"


def test_what_is_asked_to_be_a_category_is_one(write):
    path = write("zip,big,b,label\n01,9007199254740993,1,0\n2.0,5,x,1\n01,5,3,0\n")
    table = read_labelled(path, category=["zip,big", "b"])
    assert [column.categories for column in table.columns] == [("01", "2"), ("5", "9007199254740993"), ("1", "3", "x")]
    whole = pd.DataFrame({"zip": [1, 2, 1], "label": [0, 1, 0]})
    assert read_labelled(whole, category=["zip"]).columns[0].categories == ("1", "2")
    assert read_labelled(whole.astype(float), category=["zip"]).columns[0].categories == ("1", "2")


@pytest.mark.parametrize("name", [None, "key"])
def test_an_index_that_pandas_wrote_is_no_column(tmp_path, name):
    shuffled = frame().iloc[[3, 1, 0, 4, 2]]
    expected = read_labelled(shuffled, target="survived")
    shuffled.rename_axis(name).to_parquet(tmp_path / "a.parquet")
    shuffled.rename_axis(name).to_feather(tmp_path / "a.feather")
    forms = [tmp_path / "a.parquet", tmp_path / "a.feather", pa.parquet.read_table(tmp_path / "a.parquet")]
    if not name:
        forms.append(pl.read_parquet(tmp_path / "a.parquet"))
    for form in forms:
        table = read_labelled(form, target="survived")
        assert (table.columns, stored(table, tmp_path)) == (expected.columns, stored(expected, tmp_path))
        assert f"left out, as an index is no column: {name or '__index_level_0__'}" in table.notes
    last = pd.DataFrame({"a": [1, 2], "b": [0, 1]}, index=[5, 3])
    last.to_parquet(tmp_path / "a.parquet")
    assert read_labelled(tmp_path / "a.parquet").target_names == ("b",)


def test_numbers_that_are_written_like_codes_are_told(write):
    rows = "10115,0,0\n" * 200
    path = write(f"zip,b,label\n{rows}01067,0.5,1\n")
    warning = "zip is a number, though it has a 0 in front of some; if it is a code, --category zip"
    assert read_labelled(path).warnings == (warning,)
    table = read_labelled(path, category=["zip"])
    assert (table.columns[0].categories, table.warnings) == (("01067", "10115"), ())
    assert read_rows(path, [Column("zip")], "models/m").warnings == ()


def test_categories_of_a_frame_are_categories_whatever_they_hold():
    days = pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-01"])
    frame = pd.DataFrame({"zip": [7, 12, 7], "on": [True, False, True], "day": days, "label": [3, 5, 3]})
    table = read_labelled(frame.astype("category"))
    assert [column.categories for column in table.columns] == [
        ("12", "7"), ("false", "true"), ("2026-01-01 00:00:00", "2026-01-02 00:00:00"),
    ]  # fmt: skip
    assert (table.labels.tolist(), table.class_names) == ([0, 1, 0], ("3", "5"))
    for rows in (frame, frame.astype("category")):
        assert np.array_equal(read_rows(rows.drop(columns="label"), table.columns, "m").inputs, table.inputs)
    numbers = (Column("zip"), Column("on", "boolean"), Column("day", "date"))
    assert read_rows(frame.astype("category"), numbers, "m").inputs.tolist() == [
        [7, 1, 20454],
        [12, 0, 20455],
        [7, 1, 20454],
    ]
    with pytest.raises(InvalidRequest, match="inputs must be a table, got a Series; a row of pandas is"):
        read_labelled(frame.iloc[0])


def test_texts_that_are_too_many_are_left_out_with_a_word(write):
    names = "".join(f"name {row},{row},{row % 2}\n" for row in range(30))
    path = write(f"name,age,label\n{names}")
    table = read_labelled(path)
    assert (table.input_names, table.left_out) == (("age",), ("name",))
    assert table.warnings == ("name is left out: 30 different texts in 30 rows; keep it with --category name",)
    assert len(read_labelled(path, category=["name"]).columns[0].categories) == 30


MODEL = (Column("age"), Column("deck", "category", ("A", "B")), Column("alone", "boolean"), Column("on", "date"))


def test_rows_are_read_as_a_model_has_them(write):
    path = write("deck,name,on,age,alone\nB,x,2026-01-02,1,yes\nT,y,,NA,0\n,z,1970-01-02,3,1\n")
    rows = read_rows(path, MODEL, "models/m")
    nan: Any = np.nan
    assert np.array_equal(rows.inputs, [[1, 1, 1, 20455], [nan, -1, 0, nan], [3, nan, 1, 1]], equal_nan=True)
    assert (rows.unknown, rows.left_out) == ({"deck": {"T": 1}}, ("name",))
    assert rows.warnings == ("1 row has a deck that models/m has not seen: 'T'",)
    given = pd.DataFrame({"on": ["2026-01-02"], "alone": [True], "deck": ["A"], "age": [2.5]})
    assert read_rows(given, MODEL).inputs.tolist() == [[2.5, 0, 1, 20455]]
    assert read_rows(write("NA,A,yes,2026-01-01\n", "b.csv"), MODEL, header=False).inputs.shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "age,deck,alone,on\n1,A,yes,2026-01-01\nold,A,no,2026-01-02\n",
            "a.csv, line 3, column age, must be a number, got 'old'",
        ),
        (
            "age,deck,alone,on\n1,A,2,2026-01-01\n",
            "a.csv, line 2, column alone, must be true or false, or yes or no, got '2",
        ),
        ("age,deck,alone,on\n1,A,no,5\n", "column on, must be an ISO date"),
        ("age,deck,alone\n1,A,no\n", "a.csv must have the columns of models/m, but it lacks on"),
    ],
)
def test_rows_that_a_model_can_not_take_are_refused(write, text, sentence):
    with pytest.raises(InvalidRequest) as caught:
        read_rows(write(text), MODEL, "models/m")
    assert sentence in caught.value.message
    assert "--category" not in caught.value.message


def test_a_table_like_another_has_its_columns_and_classes(write):
    train = read_labelled(write("deck,age,species\nA,1,cat\nB,2,dog\nA,3,eel\n"))
    like = Schema("datasets/train", train.columns, train.class_names, 3, train.target_names)
    table = read_labelled(write("id,species,age,deck\n7,eel,5,B\n8,cat,NA,A\n", "b.csv"), like)
    assert (table.columns, table.class_names, table.left_out) == (train.columns, train.class_names, ("id",))
    assert np.array_equal(table.inputs, [[1.0, 5.0], [0.0, np.nan]], equal_nan=True)
    assert np.array_equal(table.labels, [2, 0])
    table = read_labelled(write("deck,age,species\nT,1,cat\nA,2,dog\nT,1,cat\n", "b.csv"), like)
    assert (table.columns[0].categories, table.inputs[:, 0].tolist()) == (("A", "B", "T"), [2, 0, 2])
    assert table.warnings == ("2 rows have a deck that datasets/train has not seen: 'T'",)
    for_model = replace(like, owner="models/m", takes_unknown=True)
    table = read_labelled(write("deck,age,species\nT,1,cat\nA,2,dog\nT,1,cat\n", "b.csv"), for_model)
    assert (table.columns, table.inputs[:, 0].tolist()) == (train.columns, [-1, 0, -1])
    with pytest.raises(InvalidRequest, match=r"b\.csv, column species, must be one of cat, dog, eel, got 'fox'"):
        read_labelled(write("deck,age,species\nA,1,fox\n", "b.csv"), like)


def test_dates_are_days_in_utc(write):
    table = read_rows(write("on\n1970-01-01\n1970-01-02T12:00\n1970-01-02T12:00+06:00\n1969-12-31\n"))
    assert table.inputs[:, 0].tolist() == [0, 1.5, 1.25, -1]
    zone = dt.timezone(dt.timedelta(hours=6))
    for day in (dt.date(1970, 1, 2), dt.datetime(1970, 1, 2, 6, tzinfo=zone)):
        assert read_rows(pa.table({"on": [day]})).inputs.tolist() == [[1]]


def test_a_model_without_names_takes_numbers_alone(write):
    path = write("a,town\n1,Rome\n2,Oslo\n")
    with pytest.raises(InvalidRequest, match=r"a\.csv, line 2, column town, must be a number, got 'Rome'"):
        read_rows(path, (), "models/m")
    assert read_rows(path).columns[1].kind == "category"
    with pytest.raises(InvalidRequest, match=r"a\.csv, line 2, column town, must be a number, got 'Rome'"):
        read_labelled(path, Schema("datasets/plain", ()), target="a")


def test_values_that_pandas_says_are_missing_are_no_class():
    with pytest.raises(InvalidRequest, match="labels must have a value in every row, got none at row 1"):
        understood(np.eye(3), pd.Series(["a", None, "b"], dtype="string"))
    assert understood(np.eye(3), pl.Series(["b", "a", "b"])).class_names == ("a", "b")


def test_decimals_and_times_are_those_of_their_texts(write):
    days = ["2026-11-27 08:30:15.123457", "1500-01-01 00:00:00.000001", "2500-12-31 23:59:59.999999"]
    numbers = ["0.1", "2.675", "1234567.891"]
    path = write("n,t\n" + "".join(f"{number},{day}\n" for number, day in zip(numbers, days, strict=True)))
    table = pa.table(
        {
            "n": pa.array([Decimal(number) for number in numbers]),
            "t": pa.array([dt.datetime.fromisoformat(day) for day in days], pa.timestamp("us")),
        }
    )
    assert read_rows(path).columns == read_rows(table).columns
    assert np.array_equal(read_rows(path).inputs, read_rows(table).inputs)
    assert np.array_equal(read_rows(table.to_batches()[0]).inputs, read_rows(table).inputs)


def test_names_that_do_not_fit_a_file_are_refused(write):
    lines = "".join(f"{'x' * 150}{row},{row % 2}\n" for row in range(9000))
    table = read_labelled(write(f"a,label\n{lines}"), category=["a"])
    with pytest.raises(InvalidRequest, match="categories and classes must fit 1,048,576 bytes"):
        write_dataset(Path("never"), dataset_tensors(table), table.metadata())
