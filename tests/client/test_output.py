"""What the command line prints as JSON is JSON, whatever a server sends; what it writes is what was predicted."""

import csv
import json

import numpy as np
import pytest
from google.rpc import status_pb2
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import print_json
from mlpd.client.cli.predictions import table_of, write
from mlpd.client.errors import InvalidRequest
from mlpd.client.results import Evaluation, Prediction
from mlpd.client.tables import Column, LabelledTable
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb

NAN, INF = float("nan"), float("inf")


def test_numbers_that_are_not_finite_are_null(capsys):
    print_json({"loss": NAN, "metrics": {"r2": -INF, "name": "NaN"}, "values": [[1.5, INF], [2, True, None]]})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=lambda word: f"{word} is not JSON") == {
        "loss": None,
        "metrics": {"r2": None, "name": "NaN"},
        "values": [[1.5, None], [2, True, None]],
    }


def test_numbers_of_messages_that_are_not_finite_are_null(capsys):
    """protobuf's own JSON has the words "NaN" and "Infinity" for them, which a name may also be."""
    metrics = pb.MetricsRecorded(loss=NAN, accuracy=0.5, progress=pb.Progress(step=2**60, rows_per_second=INF))
    print_json(fields_of(metrics))
    assert json.loads(capsys.readouterr().out) == {
        "split": "SPLIT_UNSPECIFIED",
        "loss": None,
        "accuracy": 0.5,
        "learning_rate": 0.0,
        "progress": {
            "step": 2**60, "step_count": 0, "epoch": 0, "epoch_count": 0,
            "rows_per_second": None, "remaining_duration": None,
        },
    }  # fmt: skip
    assert fields_of(dataset_pb.Dataset(input_names=["NaN"]))["input_names"] == ["NaN"]


def test_messages_are_json_with_nothing_left_out():
    event = pb.ProgressEvent(sequence=3, message_logged=pb.MessageLogged(severity=pb.MessageLogged.SEVERITY_INFO))
    assert fields_of(event) == {
        "sequence": 3, "event_time": None, "attempt": 0,
        "message_logged": {"severity": "SEVERITY_INFO", "message": ""},
    }  # fmt: skip
    assert fields_of(pb.MetricsRecorded())["accuracy"] is None
    response = pb.EvaluateResponse(metrics={"r2": 0.5}, class_scores=[pb.ClassScores(row_count=2)])
    fields = fields_of(response)
    assert (fields["metrics"], fields["correct_count"], fields["confusion_matrix"]) == ({"r2": 0.5}, None, None)
    scores = {"row_count": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": None}
    assert fields["class_scores"] == [scores]
    job = pb.TrainingJob(state=pb.TrainingJob.STATE_FAILED, error=status_pb2.Status(code=9, message="no"))
    job.create_time.FromSeconds(0)
    job.spec.time_limit.FromSeconds(90)
    fields = fields_of(job)
    assert (fields["state"], fields["create_time"]) == ("STATE_FAILED", "1970-01-01T00:00:00Z")
    assert (fields["spec"]["time_limit"], fields["spec"]["optimizer"]) == ("90s", None)
    assert fields["error"] == {"code": 9, "message": "no", "details": []}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_predictions_keep_every_digit(dtype, tmp_path):
    values = (np.array([[1.0, -1e-30], [2e20, 1e8 + 1]]) / 3).astype(dtype)
    nothing = np.empty(0)
    write(tmp_path / "out.csv", Prediction("a", values, nothing.astype(np.int64), nothing, values, ["a", "1"]))
    assert np.array_equal(np.loadtxt(tmp_path / "out.csv", dtype, delimiter=",", skiprows=1), values)
    shares, classes = np.array([[1 / 3, 2 / 3], [1e-9, 1 - 1e-9]]).astype(dtype), np.array([1, 1])
    write(tmp_path / "out.csv", Prediction("a", values, classes, shares, nothing, ["0", "1"]))
    written = np.loadtxt(tmp_path / "out.csv", dtype, delimiter=",", skiprows=1)
    assert np.array_equal(written, np.column_stack([classes, shares]))


def test_classes_are_written_and_shown_by_their_names(tmp_path):
    shares = np.array([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2]], np.float32)
    names = ["setosa", 'versi"color', "a,b"]
    prediction = Prediction("models/a", shares, np.array([1, 0]), shares, np.empty(0), names)
    assert prediction.labels.tolist() == ['versi"color', "setosa"]
    best, chances = prediction.top(2)
    assert best.tolist() == [['versi"color', "setosa"], ["setosa", 'versi"color']]
    assert chances.tolist() == np.array([[0.7, 0.2], [0.5, 0.3]], np.float32).tolist()
    write(tmp_path / "out.csv", prediction)
    with (tmp_path / "out.csv").open(newline="") as file:
        header, first, _ = csv.reader(file)
    assert header == ["class", *(f"probability_{name}" for name in names)]
    assert first[0] == 'versi"color'
    assert np.array(first[1:], np.float32).tolist() == shares[0].tolist()
    write(tmp_path / "out.npz", prediction)
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["class_names"].tolist() == names
    for top in (0, 4):
        with pytest.raises(InvalidRequest, match=f"top must be between 1 and 3, the classes of models/a, got {top}"):
            prediction.top(top)
    assert table_of(prediction, 3).row_count == 2
    assert repr(prediction) == "Prediction(model='models/a', 2 rows, 3 classes)"


def test_what_a_notebook_shows_of_results_fits_a_line():
    evaluation = Evaluation(
        "models/a/versions/1", "00" * 32, 200, 150, 0.5, np.eye(10, dtype=np.int64), {}, [], list("abcdefghij")
    )
    assert repr(evaluation) == "Evaluation(model='models/a/versions/1', 200 rows, accuracy 0.7500, loss 0.5)"
    columns = tuple(Column(f"column-{place}") for place in range(500))
    table = LabelledTable(np.zeros((9, 500), np.float32), columns, labels=np.zeros(9, np.int64))
    assert repr(table) == (
        "LabelledTable(9 x 500 of float32: column-0, column-1, column-2, column-3, column-4 and 495 more)"
    )
