"""What the command line prints as JSON is JSON, whatever a server sends; what it writes is what was predicted."""

import json

import numpy as np
import pytest
from mlpd.client.cli.inference import _write
from mlpd.client.cli.output import fields_of, print_json
from mlpd.client.client import Prediction
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
    metrics = pb.MetricsRecorded(loss=NAN, accuracy=0.5, progress=pb.Progress(step=3, rows_per_second=INF))
    print_json(fields_of(metrics))
    assert json.loads(capsys.readouterr().out) == {
        "loss": None,
        "accuracy": 0.5,
        "progress": {"step": "3", "rows_per_second": None},
    }
    spec = pb.TrainingSpec(loss=pb.Loss(class_weights=[1, INF]), schedule=pb.Schedule(learning_rate=0.1))
    spec.time_limit.seconds = 3
    segment = pb.Schedule.Segment(schedule=pb.Schedule(learning_rate=-INF))
    spec.schedule.joined.segments.extend([segment, pb.Schedule.Segment(step_count=2)])
    print_json(fields_of(spec))
    assert json.loads(capsys.readouterr().out) == {
        "loss": {"class_weights": [1.0, None]},
        "schedule": {
            "learning_rate": 0.1,
            "joined": {"segments": [{"schedule": {"learning_rate": None}}, {"step_count": "2"}]},
        },
        "time_limit": "3s",
    }
    assert fields_of(dataset_pb.Dataset(input_names=["NaN"])) == {"input_names": ["NaN"]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_predictions_keep_every_digit(dtype, tmp_path):
    values = (np.array([[1.0, -1e-30], [2e20, 1e8 + 1]]) / 3).astype(dtype)
    nothing = np.empty(0)
    _write(tmp_path / "out.csv", Prediction("a", values, nothing.astype(np.int64), nothing, values))
    assert np.array_equal(np.loadtxt(tmp_path / "out.csv", dtype, delimiter=",", skiprows=1), values)
    shares, classes = np.array([[1 / 3, 2 / 3], [1e-9, 1 - 1e-9]]).astype(dtype), np.array([1, 1])
    _write(tmp_path / "out.csv", Prediction("a", values, classes, shares, nothing))
    written = np.loadtxt(tmp_path / "out.csv", dtype, delimiter=",", skiprows=1)
    assert np.array_equal(written, np.column_stack([classes, shares]))
