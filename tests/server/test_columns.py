"""Names of columns: they belong to data sets and models, and decide which value is which."""

import json

import numpy as np
import pytest
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages


def upload(stubs, name, inputs, labels, names=()):
    metadata = {"input_names": json.dumps(names)} if names else None
    content = save({"inputs": np.ascontiguousarray(inputs), "labels": labels}, metadata)
    return stubs.datasets.UploadDataset(upload_messages(name, content)).dataset


@pytest.fixture(scope="module")
def rows(rings):
    inputs, labels = rings
    return inputs * [1, 0.5], labels  # a model of x and y is of no use for y and x


@pytest.fixture(scope="module")
def named(stubs, rows):
    """A model of the columns x and y."""
    inputs, labels = rows
    upload(stubs, "named", inputs, labels, ["x", "y"])
    upload(stubs, "named-turned", inputs[:, ::-1], labels, ["y", "x"])
    upload(stubs, "named-otherwise", inputs, labels, ["x", "z"])
    upload(stubs, "nameless", inputs, labels)
    job = stubs.train(rings_spec(train_dataset="datasets/named", epoch_count=25), model_id="named")
    assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    return stubs.job(job.name).model_version


def evaluated(stubs, model, dataset):
    answer = stubs.trainer.Evaluate(pb.EvaluateRequest(model=model, dataset=f"datasets/{dataset}"))
    return answer.correct_count, answer.loss


def test_names_are_read_with_a_data_set_and_with_the_models_trained_on_it(stubs, named):
    dataset = stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name="datasets/named")).dataset
    model = stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=named)).model_version
    assert dataset.input_names == model.input_names == ["x", "y"]
    assert (dataset.whole_inputs, dataset.input_maximum) == (False, pytest.approx(4.2, abs=1))
    assert dataset.input_minimum < 0


def test_lists_leave_names_out(stubs, named):
    datasets = stubs.datasets.ListDatasets(dataset_pb.ListDatasetsRequest(page_size=1000)).datasets
    models = stubs.models.ListModelVersions(model_pb.ListModelVersionsRequest(page_size=1000)).model_versions
    assert "datasets/named" in {dataset.name for dataset in datasets}
    assert {tuple(message.input_names) for message in (*datasets, *models)} == {()}


def test_the_same_columns_in_another_order_score_the_same(stubs, named):
    right = evaluated(stubs, named, "named")
    assert right[0] > 540
    assert evaluated(stubs, named, "named-turned") == right


def test_columns_without_names_are_taken_in_their_order(stubs, named):
    assert evaluated(stubs, named, "nameless") == evaluated(stubs, named, "named")


def test_other_columns_are_refused_by_their_names(stubs, named):
    request = pb.EvaluateRequest(model=named, dataset="datasets/named-otherwise")
    refusal = refused(stubs.trainer.Evaluate, request)
    assert (refusal.reason, refusal.fields) == ("COLUMNS_MISMATCH", ["dataset"])
    assert refusal.message == f"dataset must have the columns of {named}, but it lacks 'y' and has also 'z'"


def losses(stubs, spec):
    """The validation losses of a run, bit for bit."""
    events = stubs.events(stubs.train(spec).name)
    found = [event.metrics_recorded for event in events if event.HasField("metrics_recorded")]
    return [metrics.loss for metrics in found if metrics.split == pb.MetricsRecorded.SPLIT_VALIDATION]


def test_a_run_validates_on_the_same_columns_in_any_order(stubs, named):
    specs = [rings_spec(train_dataset="datasets/named", validation_dataset=f"datasets/{name}") for name in VALIDATED]
    right, turned = (losses(stubs, spec) for spec in specs)
    assert right == turned
    assert len(right) == 3


VALIDATED = "named", "named-turned"


def test_a_run_is_refused_where_its_data_have_other_columns(stubs, named):
    refusal = refused(
        stubs.train, rings_spec(train_dataset="datasets/named", validation_dataset="datasets/named-otherwise")
    )
    assert refusal.fields == ["spec.validation_dataset"]
    assert refusal.message == (
        "spec.validation_dataset must have the columns of datasets/named, but it lacks 'y' and has also 'z'"
    )


def warm(**fields):
    scope = pb.WarmStart.SCOPE_WEIGHTS
    return rings_spec(model=types.ModelSpec(), warm_start=pb.WarmStart(model="models/named", scope=scope), **fields)


def test_a_warm_start_keeps_names_and_their_order_or_is_refused(stubs, named):
    refusal = refused(stubs.train, warm(train_dataset="datasets/named-otherwise"))
    assert refusal.fields == ["spec.train_dataset"]
    nameless = warm(train_dataset="datasets/nameless", validation_dataset="datasets/named-otherwise")
    assert refused(stubs.train, nameless).fields == ["spec.validation_dataset"]
    digests = set()
    for name in ("named", "named-turned", "nameless"):
        job = stubs.train(warm(train_dataset=f"datasets/{name}", epoch_count=1))
        stubs.events(job.name)
        request = model_pb.GetModelVersionRequest(name=stubs.job(job.name).model_version)
        version = stubs.models.GetModelVersion(request).model_version
        assert version.input_names == ["x", "y"]
        digests.add(version.parameters_sha256)
    assert len(digests) == 1


def test_names_that_can_not_tell_columns_apart_are_refused(stubs, rows):
    content = save({"inputs": rows[0], "labels": rows[1]}, {"input_names": '["x", "x"]'})
    refusal = refused(stubs.datasets.UploadDataset, upload_messages("twice", content))
    assert (refusal.reason, "got 'x' twice" in refusal.message) == ("DATASET_INVALID", True)
