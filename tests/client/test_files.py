"""A user's files: what is read, and the sentence for what is not."""

import numpy as np
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.tables import read_labelled, read_rows


def arrays_of(rows):
    names = ("inputs", "labels", "targets", "weights")
    return {name: array for name in names if (array := getattr(rows, name)) is not None}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("1,2,0\n3,4,1\n", "-1"),
        ("1,2,0\n3,4,1\n", "2"),
        ("\ufeffa,b,label\n1,2,0\n3,4,1\n", "label"),
        ("a,b,label\r\n1,2,0\r\n\r\n3,4,1", "-1"),
        ("label,a,b\n0,1,2\n1,3,4\n", "0"),
        ('"1","2",0\n3,4,1\n', "-1"),
        ("\n1,2,0\n3,4,1\n", "-1"),
        ("\ufeff1,2,0\n3,4,1\n", "-1"),
    ],
)
def test_csv_with_and_without_a_header(tmp_path, text, column):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    arrays = arrays_of(read_labelled(path, target=column))
    assert arrays.keys() == {"inputs", "labels"}
    assert arrays["inputs"].tolist() == [[1, 2], [3, 4]]
    assert arrays["labels"].tolist() == [0, 1]


def test_csv_with_targets_and_weights(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,price,b,size,w\n1,10,2,20,0.5\n3,30,4,40,1\n")
    arrays = arrays_of(read_labelled(path, target=["price", "3"], weight="w"))
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "inputs": [[1, 2], [3, 4]],
        "targets": [[10, 20], [30, 40]],
        "weights": [0.5, 1],
    }
    with pytest.raises(InvalidRequest, match=r"target must be one of a, price, b, size, w, got height"):
        read_labelled(path, target=["height"])
    with pytest.raises(InvalidRequest, match=r"each column must have one use, price of a.csv has several"):
        read_labelled(path, target=["price", "price"])


def test_npz_with_targets_and_weights(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.ones((2, 3)), targets=np.zeros((2, 4)), weights=np.ones(2))
    arrays = arrays_of(read_labelled(tmp_path / "a.npz"))
    assert {name: array.shape for name, array in arrays.items()} == {
        "inputs": (2, 3),
        "targets": (2, 4),
        "weights": (2,),
    }


@pytest.mark.parametrize(
    ("content", "column", "sentence"),
    [
        (b"", "-1", "a.csv must hold at least one row, got none"),
        (b"a,b\n", "-1", "a.csv must hold at least one row, got none"),
        (b"1,2\n3\n", "-1", "a.csv, line 2, must have 2 cells as the first line, got 1"),
        (b"a,b\n1,2\n3\n", "-1", "a.csv, line 3, must have 2 cells as the first line, got 1"),
        (b"b,a\n\n2,1\nx,3\n4,5\n", "-1", "a.csv, line 4, column b, must be a number, got 'x'"),
        (b"1,2\nx,3\n4,5\n", "-1", "a.csv, line 2, column 1, must be a number, got 'x'"),
        (b"1,2\n3,1,5\n", "-1", "a.csv, line 2, must have 2 cells as the first line, got 3"),
        (b"1,2\n\x00,3\n", "-1", "a.csv, line 2, must be text, got a NUL byte"),
        (b"1,2\n\xff,3\n", "-1", "can't be read as CSV in UTF-8"),
        (b"1,2\n", "3", "target must be between -2 and 1 in a.csv, got 3"),
        (b"1,2\n", "y", "target must be a number: the file has no header, got y"),
        (b"a,b\n1,2\n", "y", "target must be one of a, b, got y"),
        (b"1\n2\n", "-1", "a.csv must have at least two columns, got one, column 1; if other characters than , ;"),
        (b"# by me\na,b\n1,2\n", "-1", "a.csv, line 1, must have 2 cells as the lines after it, got 1"),
    ],
)
def test_csv_that_does_not_fit_gets_one_sentence(tmp_path, content, column, sentence):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(path, target=column)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [("inputs", "labels"), ("x", "y"), ("data", "target")])
def test_npz_by_its_usual_names(tmp_path, names):
    path = tmp_path / "a.npz"
    np.savez(path, **dict(zip(names, (np.ones((2, 3)), np.array([0, 1])), strict=True)))
    arrays = arrays_of(read_labelled(path))
    assert (arrays["inputs"].shape, arrays["labels"].tolist()) == ((2, 3), [0, 1])
    assert read_rows(path).inputs.shape == (2, 3)


def test_files_that_are_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(1))
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object), y=np.ones(1))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    for name in ("other.npz", "pickle.npz", "text.npz", "missing.npz", "missing.csv", "a.parquet", "none"):
        with pytest.raises(InvalidRequest):
            read_labelled(tmp_path / name)
    for name in ("text.npy", "object.npy", "missing.npy", "a.parquet"):
        with pytest.raises(InvalidRequest):
            read_rows(tmp_path / name)
