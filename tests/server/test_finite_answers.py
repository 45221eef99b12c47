"""Finite rows of which a model makes numbers that are not: refused by name, never answered, never counted."""

import json

import numpy as np
import pytest
from grpc import StatusCode
from mlpd.client import Client, InvalidRequest
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from ..command_line import run
from .conftest import refused, upload_messages
from .test_capabilities import finished, spec_of

# Trained on rows of about 1 / SCALE; those of 1e9 come out as 1e39 and more, which no float32 is.
SCALE = 1e30
X = np.linspace(-1, 1, 40, dtype=np.float32)[:, None] * np.float32(1 / SCALE)
LABELS = (X[:, 0] > 0).astype(np.int64)
KINDS: dict[str, tuple[list[int], dict[str, np.ndarray], str]] = {
    "multiclass": ([1, 2], {"labels": LABELS}, ""),
    "binary": ([1, 1], {"labels": LABELS}, ""),
    "multilabel": ([1, 2], {"targets": np.stack([LABELS, 1 - LABELS], axis=1).astype(np.uint8)}, ""),
    "regression": ([1, 1], {"targets": X * np.float32(SCALE)}, ""),
    "poisson": ([1, 1], {"targets": LABELS[:, None].astype(np.float32)}, "poisson"),
}
MIXED = X.copy()
MIXED[[3, 17]] = 1e9


def finite_spec(name, model, loss):
    fields = {"batch_size": 40, "epoch_count": 20, "seed": 1, "loss": pb.Loss(kind=loss)}
    return spec_of(f"finite-{name}", model=model, schedule=pb.Schedule(learning_rate=0.1), **fields)


def trained(stubs, name, model, loss):
    return finished(stubs, finite_spec(name, model, loss)).model_version


@pytest.fixture(scope="module", params=KINDS)
def overflowing(stubs, request):
    """A model that overflows on large rows, and the data sets finite-KIND, and mixed-KIND with two large rows."""
    sizes, targets, loss = KINDS[request.param]
    for name, inputs in (("finite", X), ("mixed", MIXED)):
        content = save({"inputs": inputs, **targets})
        stubs.datasets.UploadDataset(upload_messages(f"{name}-{request.param}", content))
    model = types.ModelSpec(layer_sizes=sizes, input_scale=SCALE)
    return request.param, trained(stubs, request.param, model, loss)


def predict_request(model, rows, *outputs):
    data_type = types.DATA_TYPE_FP32 if rows.dtype == np.float32 else types.DATA_TYPE_FP64
    inputs = types.Tensor(data_type=data_type, shape=rows.shape, data=rows.tobytes())
    return pb.PredictRequest(model=model, inputs=inputs, outputs=outputs)


def test_a_prediction_that_is_not_finite_is_refused_and_its_rows_are_named(stubs, overflowing):
    _, model = overflowing
    stubs.trainer.Predict(predict_request(model, X, pb.OUTPUT_KIND_ALL))
    for outputs in ((), (pb.OUTPUT_KIND_LOGITS,), (pb.OUTPUT_KIND_ALL,)):
        refusal = refused(stubs.trainer.Predict, predict_request(model, MIXED, *outputs))
        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "OUTPUT_NOT_FINITE")
        assert refusal.fields == ["inputs"]
        expected = f"inputs must give finite outputs by {model}, got others at rows 3, 17 (2 such rows)"
        assert refusal.message == expected
        assert refusal.metadata["rows"] == "3, 17"


def test_an_evaluation_counts_no_row_that_is_not_finite(stubs, overflowing):
    kind, model = overflowing
    has_classes = kind in {"multiclass", "binary"}
    for request in (
        pb.EvaluateRequest(model=model),
        pb.EvaluateRequest(model=model, include_scores=True),
        pb.EvaluateRequest(model=model, include_confusion_matrix=has_classes),
    ):
        request.dataset = f"datasets/finite-{kind}"
        assert stubs.trainer.Evaluate(request).row_count == 40
        request.dataset = f"datasets/mixed-{kind}"
        refusal = refused(stubs.trainer.Evaluate, request)
        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "OUTPUT_NOT_FINITE")
        assert refusal.fields == ["dataset"]
        assert "finite outputs and losses" in refusal.message
        assert refusal.message.endswith("got others at rows 3, 17 (2 such rows)")


@pytest.mark.parametrize("overflowing", ["multiclass", "regression"], indirect=True)
def test_a_run_whose_validation_is_not_finite_has_diverged(stubs, overflowing):
    kind, _ = overflowing
    spec = finite_spec(kind, types.ModelSpec(layer_sizes=KINDS[kind][0], input_scale=SCALE), KINDS[kind][2])
    spec.validation_dataset = f"datasets/mixed-{kind}"
    ending = stubs.events(stubs.train(spec).name)[-1].state_changed
    assert ending.to_state == pb.TrainingJob.STATE_FAILED
    assert "the validation loss is" in ending.error.message


@pytest.mark.parametrize("overflowing", ["multiclass"], indirect=True)
def test_many_rows_are_counted_and_a_few_are_named(stubs, overflowing):
    _, model = overflowing
    refusal = refused(stubs.trainer.Predict, predict_request(model, np.full((1000, 1), -1e9)))
    assert refusal.message.endswith("got others at rows 0, 1, 2, 3, 4, 5, 6, 7 (1000 such rows)")


@pytest.mark.parametrize("overflowing", ["multiclass"], indirect=True)
def test_the_command_line_says_one_sentence(overflowing, server, tmp_path):
    kind, model = overflowing
    np.save(tmp_path / "rows.npy", MIXED)
    done = run("predict", model, tmp_path / "rows.npy", "--output", tmp_path / "out.csv", server=server)
    assert (done.returncode, done.stdout) == (1, "")
    assert "got others at rows 3, 17 (2 such rows)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
    done = run("evaluate", model, f"mixed-{kind}", "--scores", "--json", server=server)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["reason"] == "OUTPUT_NOT_FINITE"


def test_means_beyond_float32_are_not_served(stubs):
    """Of a Poisson model, outputs are logarithms: those of 1e2 are finite, and their means are not."""
    stubs.datasets.UploadDataset(upload_messages("finite-means", save({"inputs": X, "targets": X * 0 + 1})))
    model = trained(stubs, "means", types.ModelSpec(layer_sizes=[1, 1], input_scale=SCALE), "poisson")
    rows = np.array([[0], [1000], [-1000]]) / SCALE
    refusal = refused(stubs.trainer.Predict, predict_request(model, rows))
    assert refusal.reason == "OUTPUT_NOT_FINITE"
    assert refusal.metadata["rows"] in {"1", "2"}


def test_a_score_that_is_not_finite_is_refused_by_its_name(stubs):
    """Errors of 1e240 have a finite absolute loss, and no square; two of 1.2e308 have no mean loss."""
    x = X.astype(np.float64) * 1e-270
    stubs.datasets.UploadDataset(upload_messages("finite-far", save({"inputs": x, "targets": X * SCALE})))
    far = x.copy()
    far[5] = 1e-60
    stubs.datasets.UploadDataset(upload_messages("far", save({"inputs": far, "targets": X * SCALE})))
    spec = types.ModelSpec(layer_sizes=[1, 1], input_scale=1e300, data_type=types.DATA_TYPE_FP64)
    model = trained(stubs, "far", spec, "mean_absolute")
    assert stubs.trainer.Evaluate(pb.EvaluateRequest(model=model, dataset="datasets/far")).loss > 1e230
    refusal = refused(
        stubs.trainer.Evaluate, pb.EvaluateRequest(model=model, dataset="datasets/far", include_scores=True)
    )
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ["include_scores"])
    assert "mean_squared_error inf" in refusal.message
    answer = stubs.trainer.Predict(predict_request(model, np.array([[1e8]])))
    slope = np.frombuffer(answer.values.data)[0] / 1e308
    rows = np.full((2, 1), 1.2e8) / slope
    inputs = predict_request(model, rows).inputs
    request = pb.EvaluateRequest(model=model, rows=pb.LabelledRows(inputs=inputs, labels=inputs))
    refusal = refused(stubs.trainer.Evaluate, request)
    assert (refusal.reason, refusal.fields) == ("OUTPUT_NOT_FINITE", ["rows.inputs"])
    assert refusal.message == f"rows.inputs must have a finite mean loss by {model}, got inf"


def test_rows_of_a_split_request_are_named_by_the_callers_numbers(start_server, connect):
    server = start_server("--max-message-bytes", "65536")
    stubs = connect(server.address)
    stubs.upload("finite-split", X, LABELS)
    model = trained(stubs, "split", types.ModelSpec(layer_sizes=[1, 2], input_scale=SCALE), "")
    rows, labels = np.zeros((12_000, 1), np.float32), np.zeros(12_000, np.int64)
    rows[[10_007, 10_011]] = 1e9
    with Client(server.address) as client:
        for call in (lambda: client.predict(model, rows), lambda: client.evaluate(model, (rows, labels))):
            with pytest.raises(InvalidRequest, match=r"got others at rows 10007, 10011 \(2 such rows\)") as caught:
                call()
            assert caught.value.metadata["rows"] == "10007, 10011"
            assert caught.value.message in caught.value.fields.values()
        rows[10_007] = np.nan
        with pytest.raises(InvalidRequest, match="got nan at row 10007, column 0"):
            client.predict(model, rows)
        labels[11_001] = 2
        with pytest.raises(InvalidRequest, match="must be between 0 and 1, got 2 at row 11001"):
            client.evaluate(model, (np.zeros_like(rows), labels))
