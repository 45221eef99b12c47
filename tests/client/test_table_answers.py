"""What is learnt of a table: classes by number and name, or numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlpd.client import InvalidRequest, tables
from mlpd.client.tables import Column, Schema
from mlpd.client.tables.answers import labels_like


def read_labelled(*arguments, **settings) -> Any:
    return tables.read_labelled(*arguments, **settings)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "a.csv"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("cells", "settings", "labels", "names"),
    [
        ("0 1 2 0 1 2", {}, [0, 1, 2, 0, 1, 2], ()),
        ("1 2 1 2 1 2", {}, [0, 1, 0, 1, 0, 1], ("1", "2")),
        ("2 10 2 10 2 10", {}, [0, 1, 0, 1, 0, 1], ("2", "10")),
        ("dog cat dog cat dog dog", {}, [1, 0, 1, 0, 1, 1], ("cat", "dog")),
        ("True false no YES no no", {}, [1, 0, 0, 1, 0, 0], ("false", "true")),
        ("5 6 7 8 9 10", {"task": "multiclass"}, [0, 1, 2, 3, 4, 5], ("5", "6", "7", "8", "9", "10")),
        ("5 6 7 8 9 10", {}, None, ()),
        ("0.5 1 0.5 1 0.5 1", {}, None, ()),
        ("0 1 0 1 0 1", {"task": "regression"}, None, ()),
        ("1 2 1 2 1 2", {"category": ["t"]}, [0, 1, 0, 1, 0, 1], ("1", "2")),
    ],
)
def test_what_is_learnt_is_classes_or_numbers(write, cells, settings, labels, names):
    lines = "".join(f"{place},{cell}\n" for place, cell in enumerate(cells.split()))
    table = read_labelled(write(f"a,t\n{lines}"), **settings)
    assert table.class_names == names
    assert table.target_names == ("t",)
    if labels is None:
        assert np.array_equal(table.targets[:, 0], list(map(float, cells.split())))
    else:
        assert np.array_equal(table.labels, labels)


def test_several_columns_of_yes_and_no_are_labels_in_every_table(write):
    path = write("a,p,q\n1,yes,true\n2,No,false\n3,yes,TRUE\n")
    table = read_labelled(path, target=["p", "q"])
    assert (table.targets.tolist(), table.target_names) == ([[1, 1], [0, 0], [1, 1]], ("p", "q"))
    like = Schema("models/m", table.columns, target_names=("p", "q"))
    typed = pd.DataFrame({"q": [True, False, True], "p": [1, 0, 1], "a": [1, 2, 3]})
    for other in (path, typed):
        assert np.array_equal(read_labelled(other, like).targets, table.targets)
    assert read_labelled(path, target="p", task="regression", leave_out=["q"]).targets.tolist() == [[1], [0], [1]]
    with pytest.raises(InvalidRequest, match="target p must hold numbers, got 'x'; texts are learnt one column"):
        read_labelled(write("a,p,q\n1,x,1\n2,y,0\n"), target=["p", "q"])


def test_dates_are_learnt_as_days_with_a_word(write):
    path = write("a,due\n1,1970-01-03\n2,1970-01-11 12:00\n")
    table = read_labelled(path)
    assert table.targets.tolist() == [[2], [10.5]]
    assert "learnt and predicted as days since 1970-01-01: due" in table.notes
    like = Schema("models/m", table.columns, target_names=table.target_names)
    assert np.array_equal(read_labelled(path, like).targets, table.targets)


def test_many_whole_numbers_are_predicted_as_numbers_with_a_word(write):
    lines = "".join(f"{row},{row % 30}\n" for row in range(90))
    table = read_labelled(write(f"a,t\n{lines}"))
    assert table.targets.shape == (90, 1)
    assert (
        "t has 30 different whole numbers and is predicted as a number; task multiclass takes them for classes"
        in table.notes
    )


@pytest.mark.parametrize(
    ("header", "target"),
    [("a,b,c", "c"), ("Label,b,c", "Label"), ("a,CLASS,c", "CLASS"), ("a,y,c", "y"), ("x,y,c", "c")],
)
def test_the_target_is_known_by_its_name_or_is_the_last_column(write, header, target):
    assert read_labelled(write(f"{header}\n1,2,0\n3,4,1\n1,2,0\n3,4,1\n")).target_names == (target,)


def test_two_columns_that_could_be_the_target_are_not_guessed(write):
    with pytest.raises(InvalidRequest, match="target must be said where several columns can be it, got label, class"):
        read_labelled(write("label,class\n1,2\n3,4\n"))


def test_a_row_without_a_target_is_refused(write):
    with pytest.raises(
        InvalidRequest, match=r"a\.csv, line 3, column t, must have a value in every row, got none; 2 of 4 rows"
    ):
        read_labelled(write("a,t\n1,0\n2,\n3,NA\n4,1\n"), target="t")


def test_what_is_learnt_is_what_the_other_table_calls_so(write):
    like = Schema("models/m", (Column("a"),), (), 2, ("bad",))
    assert read_labelled(write("bad,a,label\n1,2,0\n0,3,0\n"), like).labels.tolist() == [1, 0]
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(write("a,label\n2,0\n3,0\n"), like)
    assert caught.value.message == (
        "a.csv must have bad, as what is learnt is called in models/m; it has a, label; --target takes another"
    )
    assert read_labelled(write("a,label\n2,0\n3,1\n"), like, target="label").labels.tolist() == [0, 1]
    assert read_labelled(write("1,2\n0,3\n"), like, target="0", header=False).labels.tolist() == [1, 0]


def test_a_target_keeps_its_own_words_for_yes_and_no(write):
    table = read_labelled(write("a,t\n1,yes\n2,no\n3,yes\n"))
    assert (table.class_names, table.labels is not None and table.labels.tolist()) == (("no", "yes"), [1, 0, 1])
    assert read_labelled(write("a,t\n1,true\n2,False\n")).class_names == ("false", "true")


@pytest.mark.parametrize("names", [("1", "2"), ("1", "2", "other")])
def test_labels_are_names_where_a_class_is_called_by_a_number(names):
    for labels in ([1, 2, 1], [1.0, 2.0, 1.0], ["1", "2", "1.0"]):
        assert labels_like(labels, names, "digits").tolist() == [0, 1, 0]
    for other, got in ((np.array([0, 1]), "0 at row 0"), (np.array([True, True]), "true at row 0")):
        with pytest.raises(InvalidRequest, match=f"labels must be classes of digits, 1, 2.*, got {got}"):
            labels_like(other, names, "digits")
    assert labels_like([0, 1], ("no", "yes"), "survivors") == [0, 1]
