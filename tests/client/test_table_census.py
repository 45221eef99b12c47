"""A census of malformed tables: each is refused in one sentence of where, rule, value and what to do."""

import gzip
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.tables import read_labelled

GOOD = b"a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n"
MANY = "".join(f"{row},{row},{row % 2}\n" for row in range(5000))

# name, content, options, what the sentence must hold
TABLES: list[tuple[str, bytes | str, dict[str, Any], tuple[str, ...]]] = [
    ("empty.csv", "", {}, ("empty.csv", "at least one row", "got none")),
    ("blank.csv", "\n\n\n", {}, ("blank.csv", "at least one row")),
    ("header.csv", "a,b,label\n", {}, ("header.csv", "at least one row")),
    ("header.csv", "a,b,label\n\n\n", {}, ("header.csv", "at least one row")),
    ("short.csv", "a,b,label\n1,2,0\n3,4\n", {}, ("line 3", "must have 3 cells", "got 2", "quotes")),
    ("long.csv", "a,b,label\n1,2,0\n3,4,1,9\n", {}, ("line 3", "must have 3 cells", "got 4")),
    ("trailing.csv", "a,b,label\n1,2,0,\n3,4,1,\n", {}, ("line 1", "must have 4 cells", "got 3")),
    ("late.csv", f"a,b,label\n{MANY}1,2\n", {}, ("line 5002", "must have 3 cells", "got 2")),
    ("two.csv", "a,b,label\n1,2,0\n3,4,1\n\nc,d\n1,2\n", {}, ("line 5", "must have 3 cells", "got 2")),
    (
        "two.csv",
        "a,b,label\n1,2,0\n3,4,1\n5,6,0\na,b,label\n1,2,1\n",
        {},
        ("line 5", "repeats the header", "one table"),
    ),
    ("texts.csv", "a,label\nx,u\ny,v\n\na,label\nx,u\n", {}, ("line 5", "repeats the header", "one table")),
    (
        "stray.csv",
        "a,b,label\n1,2,0\n3,x,1\n5,6,0\n",
        {},
        ("stray.csv, line 3, column b", "must be a number", "'x'", "--category b"),
    ),
    ("late.csv", f"a,b,label\n{MANY}oops,2,1\n", {}, ("line 5002, column a", "must be a number", "'oops'")),
    ("units.csv", "a,label\n1,0\n2,1\n3 kg,0\n", {}, ("line 4, column a", "'3 kg'")),
    ("percent.csv", "a,label\n1,0\n2,1\n3%,0\n", {}, ("line 4, column a", "'3%'")),
    ("money.csv", 'a,label\n"1,000",0\n"2,500.5",1\n3,0\n', {}, ("line 2, column a", "'1,000'")),
    ("comma.csv", 'a,label\n"1,5",0\n"2,25",1\n3,0\n', {}, ("line 2, column a", "'1,5'", "--decimal ,")),
    ("points.csv", "a;label\n1.234,5;0\n2.345,6;1\n3.456,7;0\n", {}, ("line 2, column a", "'1.234,5'")),
    ("thousand.csv", "a;label\n1,234;0\n2,345;1\n", {}, ("line 2, column a", "'1,234'", "--decimal ,")),
    ("mixed.csv", "a;label\n1,25;0\n2.5;1\n", {"decimal": ","}, ("line 3, column a", "'2.5'")),
    ("hex.csv", "a,label\n0x1F,0\n1,1\n2,0\n", {}, ("line 2, column a", "'0x1F'")),
    ("under.csv", "a,label\n1_000,0\n1,1\n2,0\n", {}, ("line 2, column a", "'1_000'")),
    ("digits.csv", "a,label\n\u0661,0\n1,1\n2,0\n", {}, ("line 2, column a", "must be a number")),
    ("inf.csv", "a,label\n1,0\ninf,1\n2,0\n", {}, ("line 3, column a", "inf")),
    ("large.csv", "a,label\n1,0\n1e39,1\n", {}, ("line 3, column a", "finite as float32", "1e+39")),
    ("larger.csv", "a,label\n1,0\n1e999,1\n", {}, ("line 3, column a", "finite as float32", "inf")),
    (
        "id.csv",
        "a,label\n9007199254740993,0\n1,1\n",
        {},
        ("line 2, column a", "float64 holds exactly", "--leave-out a"),
    ),
    (
        "date.csv",
        "a,label\n2026-01-01,0\n2026-02-30,1\n2026-03-01,0\n",
        {},
        ("line 3, column a", "ISO date", "2026-02-30"),
    ),
    (
        "date.csv",
        "a,label\n2026-01-01,0\n2026-01-02,1\n03.01.2026,0\n",
        {},
        ("line 4, column a", "ISO date", "03.01.2026"),
    ),
    ("quote.csv", 'a,b,label\n1,2,0\n3,"4,1\n5,6,0\n', {}, ("quote.csv, line 3", "quotes in pairs")),
    ("quote.csv", 'a,name,label\n1,x,0\n3,y,"1\n', {}, ("quote.csv, line 3", "quotes in pairs")),
    ("quote.csv", 'a,b,label\n1,"2,0\n' + "3,4,1\n" * 60_000, {}, ("quote.csv, line 2", "quotes in pairs")),
    ("quote.csv", f'a,b,label\n{MANY}1,"2,0\n' + "3,4,1\n" * 60_000, {}, ("quote.csv, line 5002", "quotes in pairs")),
    ("nul.csv", b"a,b,label\n1,2,0\n3,\x00,1\n", {}, ("nul.csv, line 3", "NUL byte")),
    ("nul.csv", b"a,name,label\n1,x,0\n3,y\x00z,1\n", {}, ("nul.csv, line 3", "NUL byte")),
    ("latin.csv", "a,name,label\n1,café,0\n2,thé,1\n".encode("latin-1"), {}, ("latin.csv", "UTF-8", "--encoding")),
    (
        "latin.csv",
        f"a,b,label\n{MANY * 60}".encode() + "1,é,0\n".encode("latin-1"),
        {},
        ("latin.csv", "UTF-8", "--encoding"),
    ),
    ("utf16.csv", GOOD.decode().encode("utf-16-le"), {}, ("utf16.csv",)),
    ("good.csv", GOOD, {"encoding": "utf-32"}, ("good.csv", "UTF-32", "--encoding")),
    ("good.csv", GOOD, {"encoding": "klingon"}, ("encoding", "klingon")),
    ("good.csv", GOOD, {"separator": "::"}, ("separator must be one character", "'::'")),
    ("good.csv", GOOD, {"decimal": "x"}, ("decimal must be . or ,", "'x'")),
    ("twice.csv", "a,a,label\n1,2,0\n", {}, ("twice.csv, line 1", "each column once", "'a' twice")),
    (
        "unnamed.csv",
        ",a,label\n5,1,0\n9,2,1\n",
        {},
        ("unnamed.csv, line 1, column 1", "must have a name", "--leave-out"),
    ),
    ("control.csv", 'a,"b\tc",label\n1,2,0\n', {}, ("control.csv, line 1", "printable")),
    ("counts.csv", "0,1,2\n1,2,0\n3,4,1\n", {}, ("counts.csv, line 1", "header or a row", "--header")),
    ("years.csv", "year,2019,2020\n1,2,0\n3,4,1\n", {}, ("years.csv, line 1", "names and numbers", "--header")),
    ("first.csv", "7.0,x,1\n1,2,0\n3,4,1\n", {}, ("first.csv, line 1", "names and numbers", "--header")),
    ("either.csv", "u,v;w,x\nu,v;w,x\n", {}, ("either.csv", "--separator")),
    ("classes.csv", "label,a,target\n1,2,0\n3,4,1\n", {}, ("target must be said", "label, target", "--target")),
    ("absent.csv", GOOD, {"target": "species"}, ("target must be one of a, b, label", "species")),
    ("absent.csv", GOOD, {"target": "7"}, ("target must be between -3 and 2", "7")),
    ("absent.csv", GOOD, {"category": ["c"]}, ("category must be one of a, b, label", "c")),
    ("uses.csv", GOOD, {"target": "a", "weight": "a"}, ("each column must have one use", "a of uses.csv")),
    ("inputs.csv", "label\n0\n1\n", {"header": True}, ("inputs.csv must have columns left for inputs",)),
    (
        "lacking.csv",
        "a,label\n1,0\n2,\n3,?\n",
        {},
        ("lacking.csv, line 3, column label", "in every row", "2 of 3 rows"),
    ),
    ("weight.csv", "a,w,label\n1,1,0\n2,,1\n", {"weight": "w"}, ("weight.csv, line 3, column w", "in every row")),
    (
        "weight.csv",
        "a,w,label\n1,1,0\n2,x,1\n",
        {"weight": "w"},
        ("weight.csv, line 3, column w", "must be a number", "'x'"),
    ),
    (
        "names.csv",
        "a,label\n" + "".join(f"{row},name {row}\n" for row in range(50)),
        {},
        ("names.csv, column label", "50 different texts", "--target"),
    ),
    (
        "fractions.csv",
        "a,t\n1,0.5\n2,1\n",
        {"task": "multiclass"},
        ("target t", "whole numbers or texts", "0.5", "task regression"),
    ),
    ("texts.csv", "a,t\n1,x\n2,y\n", {"task": "regression"}, ("target t must hold numbers", "'x'", "task multiclass")),
    ("void.csv", "a,b,label\n,NA,0\n?,,1\n", {}, ("void.csv", "one column with values")),
    ("newline.csv", 'a,b,label\n"x\ny",1,0\nz,2,1\n', {}, ("column a", "printable", "--leave-out a")),
    ("good.xlsx", GOOD, {}, ("good.xlsx must be one of .csv", ".xlsx")),
    ("good", GOOD, {}, ("good must be one of .csv", "no suffix")),
    ("bad.csv.gz", GOOD, {}, ("bad.csv.gz", "can't be read")),
    ("cut.csv.gz", gzip.compress(GOOD * 3000, mtime=0)[:60], {}, ("cut.csv.gz", "can't be read")),
    ("bad.csv.zst", GOOD, {}, ("bad.csv.zst", "can't be read")),
    ("bad.parquet", GOOD, {}, ("bad.parquet", "can't be read")),
    ("bad.feather", GOOD, {}, ("bad.feather", "can't be read")),
    ("bad.jsonl", '{"a": 1, "label": 0}\n{"a": \n', {}, ("bad.jsonl", "can't be read")),
    ("kinds.jsonl", '{"a": 1, "label": 0}\n{"a": "x", "label": 1}\n', {}, ("kinds.jsonl", "can't be read", "/a")),
    (
        "lists.jsonl",
        '{"a": [1], "label": 0}\n',
        {},
        ("lists.jsonl, column a", "must hold numbers", "list", "--leave-out a"),
    ),
    ("lacking.jsonl", '{"a": 1, "label": 0}\n{"a": 2}\n', {}, ("lacking.jsonl, row 1, column label", "in every row")),
    ("good.jsonl", '{"a": 1, "label": 0}\n', {"separator": ","}, ("separator must be unset",)),
]


@pytest.mark.parametrize(("name", "content", "options", "parts"), TABLES)
def test_a_malformed_table_is_refused_with_where_rule_and_value(tmp_path, name, content, options, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(path, **options)
    sentence = caught.value.message
    assert "\n" not in sentence
    assert [part for part in parts if part not in sentence] == [], sentence


def test_the_census_is_long():
    assert len(TABLES) >= 60


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        (pd.DataFrame({"a": [1, "x", 3], "label": [0, 1, 0]}), ("inputs", "column a")),
        (
            pd.DataFrame({"a": ["1", "x", "3"], "label": [0, 1, 0]}),
            ("inputs, row 1, column a", "must be a number", "'x'"),
        ),
        (pd.DataFrame({"a": [1, np.inf], "label": [0, 1]}), ("inputs, row 1, column a", "finite as float32")),
        (pd.DataFrame({"a": [[1], [2]], "label": [0, 1]}), ("inputs, column a", "must hold numbers", "list")),
        (
            pd.DataFrame({"a": pd.to_timedelta([1, 2]), "label": [0, 1]}),
            ("inputs, column a", "must hold numbers", "duration"),
        ),
        (pd.DataFrame({"a": [2**53 + 1, 1], "label": [0, 1]}), ("inputs, row 0, column a", "float64 holds exactly")),
        (
            pd.DataFrame({"a": [1, 2], "label": [0, None]}),
            ("inputs, row 1, column label", "in every row", "1 of 2 rows"),
        ),
        (pd.DataFrame({"a": [], "label": []}), ("inputs", "at least one row")),
        (pd.DataFrame({"a": [1 + 2j], "label": [0]}), ("inputs",)),
        (pd.DataFrame([[1, 0]], columns=["a", "a"]), ("inputs", "each column once", "'a' twice")),
        (pa.table({"a": [1], "": [0]}), ("inputs", "printable")),
        (pa.table({"a": [b"x"], "label": [0]}), ("inputs, column a", "binary")),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_in_the_same_way(frame, parts):
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(frame)
    sentence = caught.value.message
    assert "\n" not in sentence
    assert [part for part in parts if part not in sentence] == [], sentence


def test_columns_of_parquet_that_hold_more_than_a_value_are_refused_unless_left_out(tmp_path):
    table = pa.table({"a": [1, 2], "more": [{"b": 1}, {"b": 2}], "label": [0, 1]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidRequest, match=r"a\.parquet, column more, must hold numbers"):
        read_labelled(tmp_path / "a.parquet")
    assert read_labelled(tmp_path / "a.parquet", leave_out=["more"]).input_names == ("a",)
    (tmp_path / "a.json").write_text(json.dumps([]))
    with pytest.raises(InvalidRequest, match=r"a\.json must be one of \.csv"):
        read_labelled(tmp_path / "a.json")
