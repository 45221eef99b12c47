"""Data-set files: what is taken, and the sentence for everything that is not."""

import json

import numpy as np
import pytest
from mlpd.core.data import mnist
from mlpd.core.data.datasets import DataError, Dataset, open_dataset, write_dataset
from mlpd.core.data.inspection import inspect_dataset
from safetensors.numpy import save

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 2, 1, 2])
T = np.array([[0.5, -1.0], [0.0, 2.0], [0.25, 0.0], [1.0, 1.0]])
W = np.array([1.0, 0.0, 2.5, 1.0])


def inspected(path, inputs, targets, weights=None):
    write_dataset(path, Dataset(inputs, targets, weights))
    return inspect_dataset(path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32", "int64"])
@pytest.mark.parametrize("label_dtype", ["uint8", "int32", "int64"])
def test_a_data_set_is_counted_and_mapped_in_its_own_type(tmp_path, dtype, label_dtype):
    info = inspected(tmp_path / "a", X.astype(dtype), Y.astype(label_dtype))
    assert (info.row_count, info.input_size, info.dtype, info.class_row_counts) == (4, 3, dtype, (1, 1, 2))
    assert (info.target_dtype, info.target_size, info.target_range) == (label_dtype, 0, (0.0, 0.0))
    assert not info.weighted
    dataset = open_dataset(tmp_path / "a")
    assert dataset.inputs.dtype == dtype
    assert np.array_equal(dataset.inputs, X.astype(dtype))
    assert np.array_equal(dataset.targets, Y)
    assert dataset.weights is None


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_targets_can_be_rows_of_numbers(tmp_path, dtype):
    targets = np.abs(T).astype(dtype)
    info = inspected(tmp_path / "a", X, targets)
    assert (info.target_dtype, info.target_size, info.target_range) == (dtype, 2, (0.0, 2.0))
    assert info.class_row_counts == ()
    assert np.array_equal(open_dataset(tmp_path / "a").targets, targets)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("targets", [Y, T], ids=["labels", "numbers"])
def test_rows_can_be_weighted(tmp_path, dtype, targets):
    info = inspected(tmp_path / "a", X, targets, W.astype(dtype))
    assert info.weighted
    dataset = open_dataset(tmp_path / "a")
    assert dataset.weights is not None
    assert dataset.weights.dtype == dtype
    assert np.array_equal(dataset.weights, W)


def test_chosen_rows_keep_their_targets_and_weights():
    chosen = Dataset(X, Y, W).rows(np.array([3, 0]))
    assert (chosen.inputs[:, 0].tolist(), chosen.targets.tolist()) == ([9.0, 0.0], [2, 0])
    assert chosen.weights is not None
    assert chosen.weights.tolist() == [1.0, 1.0]
    assert len(chosen) == 2
    assert Dataset(X, Y).rows(np.array([1])).weights is None


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("inputs", "targets", "weights", "sentence"),
    [
        (
            changed(X, (2, 1), np.nan),
            *(Y, None),
            r"inputs must be finite as float32, got nan at row 2, column 1 \(1 such values\)",
        ),
        (changed(X, (0, 0), -np.inf), Y, None, "got -inf at row 0, column 0"),
        (changed(X.astype(float), (3, 2), 1e39), Y, None, r"got 1e\+39 at row 3, column 2"),
        (X, changed(Y, 1, -1), None, r"labels must be between 0 and 65535, got -1 at row 1 \(1 such labels\)"),
        (X, changed(Y, 1, 65536), None, "got 65536 at row 1"),
        (X, Y[:3], None, "labels must be one a row, got 3 for 4 rows"),
        (X, Y.astype(float), None, "labels must be one of I64, I32, U8, got F64"),
        (X.astype(">f4").view("u4"), Y, None, "inputs must be one of F32, F64, F16, U8, I32, I64, got U32"),
        (X[:0], Y[:0], None, "must have at least one row"),
        (X[:, :0], Y, None, "must have at least one row"),
        (X[0], Y, None, "inputs's shape must be 2 whole numbers"),
        (X, changed(T, (1, 0), np.nan), None, "targets must be finite as float32, got nan at row 1, column 0"),
        (X, T[:3], None, "targets must be one a row, got 3 for 4 rows"),
        (X, T[:, :0], None, "targets must have at least one row and one value"),
        (X, T.astype("int64"), None, "targets must be one of F32, F64, U8, got I64"),
        (X, T.astype("float16"), None, "targets must be one of F32, F64, U8, got F16"),
        (X, Y, changed(W, 1, -0.5), "weights must be finite and at least 0, got -0.5 at row 1"),
        (X, Y, changed(W, 3, np.nan), "weights must be finite and at least 0, got nan at row 3"),
        (X, Y, changed(W, 0, np.inf), "weights must be finite and at least 0, got inf at row 0"),
        (X, Y, 0 * W, "weights must not all be 0"),
        (X, T, W[:3], "weights must be one a row, got 3 for 4 rows"),
        (X, Y, W.astype("int64"), "weights must be one of F32, F64, got I64"),
        (X, Y, W[:, None], "weights's shape must be 1 whole numbers"),
    ],
)
def test_rows_that_can_not_be_used_are_refused_with_a_reason(tmp_path, inputs, targets, weights, sentence):
    with pytest.raises(DataError, match=sentence):
        inspected(tmp_path / "a", inputs, targets, weights)


def forged(**tensors):
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header


F4 = {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}
U1 = {"dtype": "U8", "shape": [2], "data_offsets": [8, 10]}
W4 = {"dtype": "F32", "shape": [2], "data_offsets": [10, 18]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b"[" * 9,
        b"PK\x03\x04" + bytes(60),
        save({"inputs": X}),
        save({"inputs": X, "weights": W}),
        save({"labels": Y, "weights": W}),
        save({"inputs": X, "labels": Y, "more": X}),
        save({"inputs": X, "labels": Y, "targets": T}),
        forged(inputs=F4, labels=U1) + bytes(9),
        forged(inputs=F4, labels=U1) + bytes(11),
        forged(inputs=F4 | {"shape": [-2, 1]}, labels=U1) + bytes(10),
        forged(inputs=F4 | {"shape": [2**40, 2**40]}, labels=U1) + bytes(10),
        forged(inputs=F4 | {"shape": [True, 2]}, labels=U1) + bytes(10),
        forged(inputs=F4 | {"data_offsets": [8, 0]}, labels=U1) + bytes(10),
        forged(inputs=F4, labels=U1 | {"data_offsets": [2**47, 2**47 + 2]}) + bytes(10),
        forged(inputs=F4, labels=U1 | {"dtype": []}) + bytes(10),
        forged(inputs=5, labels=U1) + bytes(10),
        forged(inputs=F4, labels=U1 | {"data_offsets": [7, 9]}) + bytes(10),
        forged(inputs=F4 | {"data_offsets": [2, 10]}, labels=U1 | {"data_offsets": [0, 2]}) + bytes(10),
        forged(inputs=F4, labels=U1, weights=W4) + bytes(10),
        forged(inputs=F4, labels=U1, weights=W4 | {"data_offsets": [0, 8]}) + bytes(10),
        forged(inputs=F4, labels=U1, weights=W4 | {"shape": [2, 1]}) + bytes(18),
    ],
)
def test_a_forged_file_is_refused_before_anything_is_allocated(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError):
        inspect_dataset(tmp_path / "a")


@pytest.mark.parametrize(("padding", "sound"), [(1_000_000, True), (1_050_000, False)])
def test_a_header_may_be_padded_up_to_its_limit(tmp_path, padding, sound):
    header = forged(inputs=F4, labels=U1)[8:]
    header += b" " * (padding - (8 + len(header) + padding) % 8)
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + bytes(10))
    if sound:
        assert inspect_dataset(tmp_path / "a").row_count == 2
    else:
        with pytest.raises(DataError, match="a safetensors header of at most 1048576 bytes"):
            inspect_dataset(tmp_path / "a")


def test_tensors_can_stand_in_any_order(tmp_path):
    (tmp_path / "a").write_bytes(save({"weights": W, "targets": T, "inputs": X}))
    dataset = open_dataset(tmp_path / "a")
    assert np.array_equal(dataset.inputs, X)
    assert np.array_equal(dataset.targets, T)


def test_mnist_is_the_published_one():
    images, labels = mnist.load("train")
    assert images.shape == (60_000, 784)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    images, labels = mnist.load("test")
    assert images.shape == (10_000, 784)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
