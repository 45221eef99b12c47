"""Rows read from a file as they are asked for: those of its map, or an error that the process outlives."""

import os
import re
import sys
from pathlib import Path

import mlpd.core
import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset, open_dataset, write_dataset
from mlpd.core.data.file_array import FileArray
from mlpd.core.devices.arrays import Cpu
from mlpd.core.files import FileDamaged, Interrupted, Verifier, digest_of
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import SoftmaxCrossEntropy
from mlpd.core.network.scaling import Scaling

ROWS = 20_000


@pytest.fixture
def path(tmp_path):
    random = np.random.default_rng(5)
    file = tmp_path / "rows.safetensors"
    write_dataset(file, Dataset(random.normal(size=(ROWS, 4)).astype(np.float32), random.integers(0, 3, ROWS)))
    return file


@pytest.fixture
def predictor():
    spec = ModelSpec.plain((4, 3))
    parameters = np.linspace(-1, 1, 15, dtype=np.float32)
    model = Model(spec, "multiclass", SoftmaxCrossEntropy(), parameters, parameters[:0], Scaling(None, 1.0))
    return Predictor(Cpu(), model, 512)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(7, 513), slice(ROWS - 3, ROWS + 5), slice(None)])
def test_rows_are_those_of_the_map(path, rows):
    mapped, read = open_dataset(path), open_dataset(path, FileArray)
    assert len(read) == ROWS
    for one, other in ((mapped.inputs, read.inputs), (mapped.targets, read.targets)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.array_equal(one[rows], other[rows])


def test_an_evaluation_gives_the_same_to_the_last_bit(path, predictor):
    *_, mapped = evaluate(predictor, open_dataset(path))
    *_, read = evaluate(predictor, open_dataset(path, FileArray))
    assert (read.correct_count, read.loss_sum, read.row_count) == (mapped.correct_count, mapped.loss_sum, ROWS)


def cut(path):
    os.truncate(path, 4096)


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def write(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")


@pytest.mark.parametrize("change", [cut, replace, write])
def test_a_file_that_changes_under_an_evaluation_is_an_error(path, predictor, change):
    os.utime(path, (0, 0))  # long ago, so that the clock of files can't stand still between then and the change
    batches = evaluate(predictor, open_dataset(path, FileArray))
    next(batches)
    change(path)
    with pytest.raises(FileDamaged, match="changed while it was read"):
        list(batches)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_that_has_long_been_the_same_is_read_once():
    path = Path(mlpd.core.__file__).parent / "data" / "mnist_files" / "t10k-images-idx3-ubyte.gz"
    verifier, sha256 = Verifier(), digest_of(path).sha256
    before = bytes_read()
    verifier.check(path, sha256)
    once = bytes_read()
    verifier.check(path, sha256)
    assert once - before >= path.stat().st_size > bytes_read() - once


def bytes_read():
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def test_a_file_is_verified_again_once_it_has_changed(path):
    verifier, sha256 = Verifier(), digest_of(path).sha256
    for _ in range(2):
        verifier.check(path, sha256)
    write(path)
    with pytest.raises(FileDamaged, match=f"must have the SHA-256 {sha256}, got "):
        verifier.check(path, sha256)


def test_a_digest_that_nobody_waits_for_is_given_up(path):
    with pytest.raises(Interrupted):
        digest_of(path, stopped=lambda: True)
