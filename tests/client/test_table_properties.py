"""Any table: the same columns give the same data set, however they are ordered, written, compressed or framed."""

import gzip
import io
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlpd.client import InvalidRequest
from mlpd.client.arrays import dataset_tensors, write_dataset
from mlpd.client.tables import Schema, read_labelled, read_rows

from ..conftest import SOAK

_WORDS = ["ant", "bee", "cat", "dog x", "1x", "Ünal", 'a "b"', "a,b", "a;b"]
_CELLS = {
    "byte": st.integers(0, 255),
    "whole": st.integers(-(2**53), 2**53),
    "single": st.floats(-(2.0**100), 2.0**100, width=32),
    "double": st.floats(-1e30, 1e30).filter(lambda number: abs(number) > 1e-30 or not number),
    "boolean": st.booleans(),
    "word": st.sampled_from(_WORDS),
    "date": st.dates(),
    "time": st.datetimes(),
}
_TYPES = {
    "byte": pa.uint8(), "whole": pa.int64(), "single": pa.float32(), "double": pa.float64(), "boolean": pa.bool_(),
    "word": pa.string(), "date": pa.date32(), "time": pa.timestamp("us"),
}  # fmt: skip


@st.composite
def tables(draw):
    """A table of up to 5 columns of all kinds, some without all values, and a target of its own."""
    row_count = draw(st.integers(2, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(_CELLS)), min_size=1, max_size=5))
    columns = {}
    for place, kind in enumerate(kinds):
        cell = _CELLS[kind] | st.none() if draw(st.booleans()) else _CELLS[kind]
        values = draw(
            st.lists(cell, min_size=row_count, max_size=row_count).filter(lambda cells: cells.count(None) < len(cells))
        )
        columns[f"c{place} {kind}"] = pa.array(values, _TYPES[kind])
    columns["saved"] = pa.array(draw(st.lists(st.sampled_from(["no", "so"]), min_size=row_count, max_size=row_count)))
    return pa.table(columns)


def text_of(table, separator=",", *, words=("", "NA", "?")):
    """The table as a text file, missing values by words in turn."""
    missing = itertools.cycle(words)
    lines = [table.schema.names, *zip(*(column.to_pylist() for column in table.columns), strict=True)]

    def cell(value):
        if value is None:
            return next(missing)
        text = repr(value) if isinstance(value, float) else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set('",;\t\n') else text

    return "".join(separator.join(map(cell, line)) + "\n" for line in lines)


def written(folder, table, form):
    """Write the table in a form; return the path, or the frame."""
    path = Path(folder) / f"t.{form}"
    match form:
        case "csv":
            path.write_text(text_of(table))
        case "tsv":
            path.write_text(text_of(table, "\t"))
        case "txt":
            path.write_text(text_of(table, ";"), encoding="utf-16")
        case "csv.gz":
            path.write_bytes(gzip.compress(text_of(table, ",", words=("-", "null", "NaN")).encode("utf-8-sig")))
        case "parquet":
            pa.parquet.write_table(table, path)
        case "feather":
            pa.feather.write_feather(table, path)
        case "pandas":
            return table.to_pandas()
        case "polars":
            return pl.from_arrow(table)
        case "arrow":
            return table
    return path


def digest(table):
    with TemporaryDirectory() as folder:
        return write_dataset(Path(folder) / "a", dataset_tensors(table), table.metadata())


FORMS = ["csv", "tsv", "txt", "csv.gz", "parquet", "feather", "pandas", "polars", "arrow"]
OPTIONS: Any = {"target": "saved"}


@settings(max_examples=60 * SOAK)
@given(tables(), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_two_forms_of_a_table_are_one_data_set(table, one, other):
    with TemporaryDirectory() as folder:
        results = []
        for form in (one, other):
            decimal: Any = {"decimal": "."} if form in ("csv", "tsv", "txt", "csv.gz") else {}
            try:
                results.append(digest(read_labelled(written(folder, table, form), **OPTIONS, **decimal)))
            except InvalidRequest as error:
                results.append(error.message)
    (first, second) = results
    if isinstance(first, str) or isinstance(second, str):
        assert isinstance(first, str) == isinstance(second, str), results
    else:
        assert first == second


@settings(max_examples=40 * SOAK)
@given(tables(), st.data())
def test_the_order_of_columns_is_that_of_the_data_set_and_no_more(table, data):
    names = data.draw(st.permutations(table.schema.names))
    one, other = read_labelled(table, **OPTIONS), read_labelled(table.select(names), **OPTIONS)
    kept = [name for name in names if name in one.input_names]
    assert other.input_names == tuple(kept)
    order = [one.input_names.index(name) for name in kept]
    assert np.array_equal(other.inputs, one.inputs[:, order], equal_nan=True)
    assert {column.name: column for column in one.columns} == {column.name: column for column in other.columns}
    like = Schema("datasets/one", one.columns, one.class_names, len(one.class_names), one.target_names)
    again = read_labelled(table.select(names), like)
    assert digest(again) == digest(one)


@settings(max_examples=40 * SOAK)
@given(tables(), st.sampled_from(["csv", "parquet", "pandas"]))
def test_rows_for_a_model_are_those_of_its_data_set(table, form):
    known = read_labelled(table, **OPTIONS)
    with TemporaryDirectory() as folder:
        rows = read_rows(written(folder, table, form), known.columns, "models/m")
    assert np.array_equal(rows.inputs, known.inputs, equal_nan=True)
    assert not rows.unknown


@settings(max_examples=30 * SOAK)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=8))
def test_numbers_of_a_file_without_names_are_those_that_were_written(rows):
    buffer = io.StringIO()
    pd.DataFrame(rows).to_csv(buffer, header=False, index=False)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(buffer.getvalue())
        read = read_rows(path, header=False)
    assert np.array_equal(read.inputs, rows)
    assert not read.columns


@pytest.mark.parametrize("row_count", [1, 49, 50, 51, 70_000])
def test_what_comes_late_in_a_file_counts_too(tmp_path, row_count):
    """The first rows say what to expect of a file, and the first batch is not all of it."""
    lines = "".join(f"{row},{row % 5}\n" for row in range(row_count))
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n{lines}1,x\n2,y\n")
    if row_count > 2:
        with pytest.raises(InvalidRequest, match=f"line {row_count + 2}, column b, must be a number, got 'x'"):
            read_rows(path)
    read = read_labelled(path, target="a", category=["b"])
    assert set(read.columns[0].categories) == {str(row % 5) for row in range(row_count)} | {"x", "y"}
    assert len(read.inputs) == row_count + 2
