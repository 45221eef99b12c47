"""Files of arrays and pictures: IDX, archives with any names, folders."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.tables import Column, Schema, read_labelled, read_rows

from ..conftest import ENVIRONMENT

IMAGES, LABELS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3), np.array([0, 1, 1, 0], np.uint8)


def idx(array, code):
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize(
    ("images", "labels", "pack"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", bytes),
        ("train-images.idx3-ubyte.gz", "train-labels.idx1-ubyte.gz", gzip.compress),
    ],
)
def test_idx_files_come_with_their_labels(tmp_path, images, labels, pack):
    (tmp_path / images).write_bytes(pack(idx(IMAGES, 8)))
    with pytest.raises(
        InvalidRequest, match=f"{images} must have a file of labels beside it, got no {labels}; say which"
    ):
        read_labelled(tmp_path / images)
    (tmp_path / labels).write_bytes(pack(idx(LABELS, 8)))
    table = read_labelled(tmp_path / images)
    assert np.array_equal(table.inputs, IMAGES)
    assert np.array_equal(np.asarray(table.labels), LABELS)
    assert table.sources == {"labels": (labels,)}
    assert np.array_equal(read_rows(tmp_path / images).inputs, IMAGES)
    (tmp_path / labels).rename(tmp_path / "other-idx1-ubyte")
    if pack is bytes:
        assert read_labelled(tmp_path / images, target="other-idx1-ubyte").labels is not None


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", ">i4", ">f4", ">f8"])
def test_idx_of_every_type(tmp_path, dtype):
    code = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}[dtype]
    (tmp_path / "a.idx").write_bytes(idx(IMAGES.astype(dtype), code))
    assert np.array_equal(read_rows(tmp_path / "a.idx").inputs, IMAGES)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", b"\0\0\x08", b"\0\0\x08\0", b"\0\0\x07\x01", b"abcd", idx(IMAGES, 8)[:-1], idx(IMAGES, 8)[:9]],
)
def test_damaged_idx_files_are_refused(tmp_path, content):
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"a\.idx (can't be read as IDX|must hold)"):
        read_rows(tmp_path / "a.idx")


def test_an_archive_with_names_of_its_own(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    for split, count in (("train", 4), ("test", 2)):
        table = read_labelled(path, target=f"y_{split}")
        assert (len(table.inputs), table.sources) == (count, {"labels": (f"y_{split}",)})
        assert len(table.left_out) == 2
    with pytest.raises(
        InvalidRequest, match=r"target must be one of the arrays x_test, x_train, y_test, y_train of a\.npz, got y"
    ):
        read_labelled(path, target="y")
    np.savez(path, one=IMAGES, two=IMAGES, y=LABELS)
    with pytest.raises(InvalidRequest, match=r"a\.npz must hold one array of rows for the 4 of y, got one, two"):
        read_labelled(path, target="y")
    np.savez(path, x=IMAGES, y=np.array(["cat", "dog", "dog", "cat"]))
    table = read_labelled(path)
    assert (table.class_names, np.asarray(table.labels).tolist()) == (("cat", "dog"), [0, 1, 1, 0])


def test_an_archive_like_another_has_its_columns_and_classes(tmp_path):
    path, like = tmp_path / "a.npz", Schema("models/m", (Column("u"), Column("v")), ("a", "b", "c"), 3)
    np.savez(path, x=[[1, 2, 3], [4, 5, 6]], y=["c", "b"], input_names=["v", "w", "u"])
    table = read_labelled(path, like)
    assert (table.inputs.tolist(), table.input_names, table.left_out) == ([[3, 1], [6, 4]], ("u", "v"), ("w",))
    assert (np.asarray(table.labels).tolist(), table.class_names) == ([2, 1], like.class_names)
    np.savez(path, x=np.eye(2), y=[2, 3])
    numbered = Schema("models/m", (), ("1", "2", "3"), 3)
    assert np.asarray(read_labelled(path, numbered).labels).tolist() == [1, 2]
    np.savez(path, x=np.eye(2), y=["2", "1"])
    assert np.asarray(read_labelled(path, Schema("models/m", (), (), 3)).labels).tolist() == [2, 1]
    np.savez(path, x=np.eye(2), y=["a", "d"])
    with pytest.raises(InvalidRequest, match="labels must be classes of models/m, a, b, c, got d at row 1"):
        read_labelled(path, like)
    np.savez(path, x=np.eye(2), y=["a", "c"], input_names=["u", "w"])
    with pytest.raises(InvalidRequest, match="must have the columns of models/m, but it lacks v"):
        read_labelled(path, like)


def test_a_folder_a_class(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    for number, (label, pixels) in enumerate(zip(["dog", "cat", "cat", "dog"], IMAGES, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        pillow.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "notes").mkdir()
    table = read_labelled(tmp_path)
    assert (table.class_names, np.asarray(table.labels).tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert np.array_equal(table.inputs, IMAGES[[1, 2, 0, 3]])
    like = Schema("models/m", (), ("bird", "cat", "dog"), 3)
    assert np.asarray(read_labelled(tmp_path, like).labels).tolist() == [1, 1, 2, 2]
    assert np.array_equal(read_rows(tmp_path / "cat").inputs, IMAGES[[1, 2]])
    pillow.fromarray(IMAGES[0].T).save(tmp_path / "dog" / "9.png")
    with pytest.raises(
        InvalidRequest, match=r"must hold pictures of one size .*\[2, 3\] as cat/1\.png, got another in dog/9\.png"
    ):
        read_labelled(tmp_path)
    (tmp_path / "dog" / "9.png").write_text("no picture")
    with pytest.raises(InvalidRequest, match=r"9\.png can't be read as a picture"):
        read_labelled(tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="must hold folders of pictures, one a class, got none"):
        read_labelled(tmp_path)
    with pytest.raises(InvalidRequest, match="must hold pictures"):
        read_rows(tmp_path)


def test_arrays_need_no_library_and_tables_say_which(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    (tmp_path / "a.csv").write_text("a,b\n1,0\n2,1\n")
    code = """
import sys
sys.modules |= {name: None for name in ("pyarrow", "PIL", "pandas")}
from mlpd.client.tables import read_labelled
print(len(read_labelled(sys.argv[1] + "/a.npz").inputs))
try:
    read_labelled(sys.argv[1] + "/a.csv")
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "4",
        "a.csv is read by pyarrow, which is not installed: pip install 'mlpd[tables]'",
    ]


def test_the_client_imports_no_library_of_tables():
    code = "import sys, mlpd.client; print(sorted({'pyarrow', 'pandas', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
