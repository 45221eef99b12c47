"""What is understood of a user's table: its header, its columns, what is left out, and what must be said."""

from typing import Any

import numpy as np
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.tables import Column, read_labelled, read_rows

BODY = "5.1,3.5,1.4,0.2,0\n4.9,3.0,1.4,0.2,0\n6.3,3.3,6.0,2.5,1\n"
AB = [Column("a"), Column("b")]
DOUBT = "can be a header or a row: say which, with --header or --no-header"


@pytest.fixture
def csv(tmp_path):
    def write(text):
        (tmp_path / "a.csv").write_text(text)
        return tmp_path / "a.csv"

    return write


def refusal(call, *arguments, **settings):
    with pytest.raises(InvalidRequest) as caught:
        call(*arguments, **settings)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("header", ["0,1,2,3,4", "1,2,3,4,5", " 0, 1, 2, 3, 4"])
@pytest.mark.parametrize("read", [read_labelled, read_rows])
def test_a_first_line_that_only_counts_the_columns_is_never_guessed(csv, read, header):
    path = csv(f"{header}\n{BODY}")
    assert DOUBT in refusal(read, path)
    assert len(read(path, header=True).inputs) == 3
    assert len(read(path, header=False).inputs) == 4


def test_one_column_without_a_name_is_not_guessed_either(csv):
    path = csv("0\n5.3\n6.1\n")
    assert DOUBT in refusal(read_rows, path)
    assert read_rows(path, header=True).inputs.tolist() == [[5.3], [6.1]]
    assert read_rows(path, header=False).inputs.tolist() == [[0], [5.3], [6.1]]
    assert "line 3, must hold a value, got an empty line" in refusal(read_rows, csv("5.3\n6.1\n\n7\n"))


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("0,1,2,3,species", True),
        ("a,b,c,d,e", True),
        ("a,b,c,d,NA", True),
        ("a,nan,inf,d,e", True),
        ("0_0,0_1,1_0,1_1,digit", True),
        ("7.0,3.2,4.7,1.4,1", False),
        ("0,0,5,13,9", False),
        ("5,4,3,2,1", False),
    ],
)
def test_a_header_has_names_and_no_numbers_but_those_that_count(csv, first, header):
    rows = read_labelled(csv(f"{first}\n{BODY}"))
    assert rows.header is header
    assert len(rows.inputs) == 3 + (not header)
    assert rows.input_names == (tuple(first.split(",")[:4]) if header else ())


@pytest.mark.parametrize("cell", ["", "?", "NA", "n/a", "null", "-"])
@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_first_row_with_a_missing_value_does_not_vanish(csv, cell, place):
    cells = ["7.0", "3.2", "4.7", "1.4", "1"]
    cells[place] = cell
    path = csv(f"{','.join(cells)}\n{BODY}")
    for read in (read_labelled, read_rows):
        rows = read(path)
        assert rows.inputs.shape == (4, 4 if read is read_labelled else 5)
        assert np.argwhere(np.isnan(rows.inputs)).tolist() == [[0, place]]
    assert len(read_rows(csv(f"a,b,{cell},d,e\n{BODY}"), AB, header=True).inputs) == 3


def test_what_only_python_takes_for_a_number_is_none(csv):
    assert "line 2, column 1, must be a number, got '1_0'" in refusal(read_rows, csv("3,2\n1_0,2\n4,2\n"))


def test_names_of_a_header_can_be_shown(csv):
    sentence = refusal(read_rows, csv('a,"b\nc"\n1,2\n'))
    assert sentence.endswith(r"must have names that are printable texts of 1 to 256 characters, got 'b\nc'")


@pytest.mark.parametrize("first", ["7.0,3.2,x,1.4,1", "year,2019,2020,2021,2022", "0,a,b,c,d"])
def test_a_first_line_of_names_and_numbers_is_not_guessed(csv, first):
    path = csv(f"{first}\n{BODY}")
    assert f"a.csv, line 1, {first}, has names and numbers: say which, with --header" in refusal(read_rows, path)
    assert len(read_rows(path, header=True).inputs) == 3


def test_a_name_that_comes_twice_is_refused(csv):
    assert "a.csv, line 1, must name each column once, got 'b' twice" in refusal(read_labelled, csv("a,b,b,l\n1,2,3,0"))
    assert "must name each column once, got '1' twice" in refusal(read_rows, csv("1,1\n2,3\n"), header=True)


def test_a_first_line_of_texts_that_are_those_of_rows_is_not_guessed(csv):
    rows = "sunny,hot,no\nrain,mild,yes\nsunny,cool,no\nrain,hot,yes\n"
    path = csv(rows)
    assert "a.csv, line 1, sunny,hot,no, can be a header or a row: say which" in refusal(read_labelled, path)
    assert len(read_labelled(path, header=False).inputs) == 4
    assert read_labelled(path, header=True).input_names == ("sunny", "hot")
    assert read_labelled(csv(f"sky,hot,play\n{rows}")).input_names == ("sky", "hot")
    numbered = "".join(f"{line},{place}\n" for place, line in enumerate(rows.splitlines()))
    assert read_labelled(csv(f"sunny,hot,no,day\n{numbered}"), target="no").input_names == ("sunny", "hot", "day")
    assert "got 'x' twice; if it is a row, say --no-header" in refusal(read_labelled, csv("x,x,y\nx,z,u\n"))


@pytest.mark.parametrize("name", ["", "Unnamed: 0", '""'])
def test_the_index_that_pandas_wrote_is_left_out(csv, name):
    rows = read_labelled(csv(f"{name},a,b,l\n0,5,6,0\n1,7,8,1\n"))
    assert (rows.inputs.tolist(), rows.input_names) == ([[5, 6], [7, 8]], ("a", "b"))
    assert rows.left_out == (name.strip('"'),)
    assert read_rows(csv(f"{name},a,b\n0,5,6\n1,7,8\n")).inputs.tolist() == [[5, 6], [7, 8]]


def test_a_column_without_a_name_that_holds_nothing_is_left_out(csv):
    rows = read_labelled(csv("a,b,label,\n5,6,0,\n7,8,1,\n"))
    assert (rows.inputs.tolist(), rows.input_names, rows.left_out) == ([[5, 6], [7, 8]], ("a", "b"), ("",))


def test_numbers_of_rows_are_told(csv):
    def notes(numbers):
        rows = "".join(f"{number},{number % 5},{number % 2}\n" for number in numbers)
        return read_labelled(csv(f"id,a,label\n{rows}")).notes

    note = "each row has a number of its own: id; if it is an id, --leave-out id"
    assert note in notes(range(1, 41))
    assert note in notes(reversed(range(1000, 1040)))
    assert note not in notes([*range(39), 38])
    assert note not in notes(range(0, 80, 2))


def test_the_index_of_a_frame_without_names_is_left_out_too(csv):
    rows = read_labelled(csv(",0,1,2\n0,5,6,0\n1,7,8,1\n"))
    assert (rows.inputs.tolist(), rows.input_names) == ([[5, 6], [7, 8]], ("0", "1"))
    assert rows.sources == {"labels": ("2",)}


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_column_without_a_name_that_does_not_count_rows_is_refused(csv, name):
    path = csv(f"{name},a,b,l\n7,5,6,0\n3,7,8,1\n")
    sentence = refusal(read_labelled, path)
    assert f"a.csv, line 1, column 1, must have a name, got {name!r}" in sentence
    assert "--leave-out -4" in sentence
    assert read_labelled(path, leave_out=["-4"]).inputs.tolist() == [[5, 6], [7, 8]]
    assert "must have a name" in refusal(read_rows, path)


def test_a_label_beside_targets_does_not_become_an_input(csv):
    path = csv("a,species,t,u\n1,0,3,4\n2,1,5,6\n")
    rows = read_labelled(path, target=["t", "u"], leave_out=["species"])
    assert (rows.inputs.tolist(), rows.left_out, rows.sources) == ([[1], [2]], ("species",), {"targets": ("t", "u")})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"target": "l", "weight": "l"}, "l"),
        ({"weight": "-1"}, "l"),
        ({"target": ["a", "0"]}, "a"),
        ({"target": ["a", "b"], "weight": "b"}, "b"),
        ({"target": "a", "leave_out": ["a"]}, "a"),
    ],
)
def test_a_column_has_one_use(csv, settings, name):
    path = csv("a,b,l\n1,2,0\n3,4,1\n")
    assert f"each column must have one use, {name} of a.csv has several" in refusal(read_labelled, path, **settings)


def test_texts_are_classes_and_categories(csv):
    path = csv("a,town,species\n1,Rome,virginica\n2,Oslo,setosa\n3,Rome,setosa\n")
    rows: Any = read_labelled(path)
    assert np.array_equal(rows.labels, [1, 0, 0])
    assert (rows.class_names, rows.target_names) == (("setosa", "virginica"), ("species",))
    assert (rows.inputs.tolist(), rows.columns[1].categories) == ([[1, 1], [2, 0], [3, 1]], ("Oslo", "Rome"))
    rows = read_labelled(path, target="a")
    assert np.array_equal(rows.targets, [[1], [2], [3]])


def test_columns_are_found_by_their_names_whatever_else_a_file_holds(csv):
    path = csv("species,id,b,a\nsetosa,x1,2,1\nvirginica,x2,4,3\n")
    rows = read_rows(path, AB, "models/m/versions/1")
    assert (rows.inputs.tolist(), rows.input_names, rows.left_out) == ([[1, 2], [3, 4]], ("a", "b"), ("species", "id"))
    assert read_rows(csv("b,a\n2,1\n4,3\n"), AB).inputs.tolist() == [[1, 2], [3, 4]]
    path = csv("species,id,b,a\nsetosa,x1,2,1\n")
    sentence = refusal(read_rows, path, [*AB, Column("c")], "models/m/versions/1")
    assert sentence.startswith("a.csv must have the columns of models/m/versions/1, but it lacks c; it has species, id")
    assert read_rows(csv("2,1\n4,5\n"), AB).inputs.tolist() == [[2, 1], [4, 5]]


def test_an_archive_tells_what_it_was_taken_for(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        x=np.ones((2, 3)),
        labels=np.array([0, 1]),
        ids=np.arange(2),
        input_names=np.array(list("abc")),
    )
    rows = read_labelled(tmp_path / "a.npz")
    assert (rows.input_names, rows.left_out, rows.sources) == (("a", "b", "c"), ("ids",), {"labels": ("labels",)})
    read = read_rows(tmp_path / "a.npz", [Column("c"), Column("a")], "models/m")
    assert (read.inputs.shape, read.left_out) == ((2, 2), ("labels", "ids", "b"))


@pytest.mark.parametrize("pair", [("labels", "y"), ("labels", "targets"), ("y", "targets"), ("inputs", "x")])
def test_two_arrays_for_one_use_are_refused(tmp_path, pair):
    arrays: dict[str, Any] = {"inputs": np.ones((2, 3))} | {name: np.array([0, 1]) for name in pair}
    np.savez(tmp_path / "a.npz", **arrays | ({"labels": np.array([0, 1])} if "x" in pair else {}))
    assert f"got {pair[0]}, {pair[1]}" in refusal(read_labelled, tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"category": ["a"]}, "category"),
        ({"weight": "w"}, "weight"),
        ({"leave_out": ["a"]}, "leave_out"),
        ({"header": False}, "header"),
    ],
)
def test_settings_of_a_table_are_refused_for_an_archive(tmp_path, settings, name):
    np.savez(tmp_path / "a.npz", inputs=np.ones((2, 3)), labels=np.array([0, 1]))
    assert f"{name} must be unset for a .npz file" in refusal(read_labelled, tmp_path / "a.npz", **settings)
