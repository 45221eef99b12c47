"""Files that are no longer what was stored: named in an error, never answered from, replaced by the next upload."""

import os

import pytest
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << 4
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path):
    with path.open("ab") as file:
        file.write(b"\0")


def remove(path):
    path.unlink()


def spoil_header(path):
    with path.open("r+b") as file:
        file.write(b"\xff" * 8)


DAMAGES = [flip, cut, lengthen, remove, spoil_header]
SEEN_AT_ONCE = [cut, lengthen, remove]


@pytest.fixture(scope="module")
def content(rings):
    inputs, labels = rings
    return save({"inputs": inputs, "labels": labels})


@pytest.fixture
def path(server, stubs, content):
    """The file of ``datasets/rings``, which is put back after the test."""
    sha256 = stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name="datasets/rings")).dataset.sha256
    file = server.data_directory / "datasets" / f"{sha256}.safetensors"
    yield file
    file.write_bytes(content)


@pytest.fixture(scope="module")
def unasked_model(server, stubs):
    """The file of a model that nothing sound was asked of yet, and its name."""
    before = set((server.data_directory / "models").iterdir())
    job = stubs.train(rings_spec(seed=190))
    assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    (file,) = set((server.data_directory / "models").iterdir()) - before
    return file, stubs.job(job.name).model_version


@pytest.fixture
def model_path(unasked_model):
    """The same; the file is put back after the test."""
    file, _ = unasked_model
    whole = file.read_bytes()
    yield unasked_model
    file.write_bytes(whole)


def evaluate(stubs, model, dataset="datasets/rings"):
    answer = stubs.trainer.Evaluate(pb.EvaluateRequest(model=model, dataset=dataset))
    return answer.correct_count, answer.loss


def failure_of(stubs, job):
    last = stubs.events(job.name)[-1].state_changed
    assert last.to_state == pb.TrainingJob.STATE_FAILED
    return last.error


def assert_tells_what_to_do(refusal, name):
    assert (refusal.code, refusal.reason) == (StatusCode.DATA_LOSS, "DATASET_DAMAGED")
    assert f"the file of {name} is damaged" in refusal.message
    assert "upload the same content again" in refusal.message
    assert "/datasets/" not in refusal.message.replace("datasets/rings", "")  # no path of the server


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_data_set_is_not_evaluated_on(stubs, model, path, damage):
    damage(path)
    assert_tells_what_to_do(refused(evaluate, stubs, model), "datasets/rings")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_after_a_sound_evaluation_is_noticed(stubs, model, path, damage):
    evaluate(stubs, model)
    damage(path)
    assert_tells_what_to_do(refused(evaluate, stubs, model), "datasets/rings")


@pytest.mark.parametrize("damage", SEEN_AT_ONCE)
@pytest.mark.parametrize("fields", [{}, {"train_dataset": "datasets/spare", "validation_dataset": "datasets/rings"}])
def test_a_job_on_a_file_that_is_missing_or_of_another_size_is_refused_at_once(stubs, rings, path, damage, fields):
    inputs, labels = rings
    stubs.upload("spare", inputs[:300], labels[:300])
    damage(path)
    request = pb.TrainRequest(spec=rings_spec(**fields), validate_only=True)
    assert_tells_what_to_do(refused(stubs.trainer.Train, request), "datasets/rings")


@pytest.mark.parametrize("fields", [{}, {"train_dataset": "datasets/spare", "validation_dataset": "datasets/rings"}])
def test_a_job_on_damaged_rows_fails_and_publishes_nothing(stubs, rings, path, fields):
    inputs, labels = rings
    stubs.upload("spare", inputs[:300], labels[:300])
    flip(path)
    error = failure_of(stubs, stubs.train(rings_spec(**fields)))
    assert error.code == StatusCode.DATA_LOSS.value[0]
    assert "the file of datasets/rings is damaged" in error.message
    assert "upload the same content again" in error.message


@pytest.mark.parametrize("name", ["rings", "rings-again"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_uploading_damaged_content_again_replaces_the_file(stubs, model, path, content, damage, name):
    sound = evaluate(stubs, model)
    damage(path)
    answer = stubs.datasets.UploadDataset(upload_messages(name, content))
    assert not answer.deduplicated
    assert path.read_bytes() == content
    assert evaluate(stubs, model) == evaluate(stubs, model, f"datasets/{name}") == sound
    assert stubs.datasets.UploadDataset(upload_messages(name, content)).deduplicated


def test_a_failed_upload_leaves_damaged_content_as_it_was(stubs, model, path, content):
    flip(path)
    damaged = path.read_bytes()
    torn = list(upload_messages("rings", content))[:-1]
    assert refused(stubs.datasets.UploadDataset, iter(torn)).reason == "SIZE_MISMATCH"
    assert path.read_bytes() == damaged
    assert_tells_what_to_do(refused(evaluate, stubs, model), "datasets/rings")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_does_not_answer(stubs, rings, model_path, damage):
    path, model = model_path
    damage(path)
    refusal = refused(evaluate, stubs, model)
    assert (refusal.code, refusal.reason) == (StatusCode.DATA_LOSS, "MODEL_DAMAGED")
    assert f"the file of {model} is damaged" in refusal.message
    assert "/models/" not in refusal.message.replace(model, "")


@pytest.mark.parametrize("damage", [flip, remove])
def test_a_job_does_not_go_on_from_a_damaged_model(stubs, model_path, damage):
    path, model = model_path
    damage(path)
    spec = rings_spec()
    spec.ClearField("model")
    spec.warm_start.CopyFrom(pb.WarmStart(model=model, scope=pb.WarmStart.SCOPE_WEIGHTS))
    if damage is remove:
        refusal = refused(stubs.train, spec)
        assert (refusal.code, refusal.reason) == (StatusCode.DATA_LOSS, "MODEL_DAMAGED")
        message = refusal.message
    else:
        message = failure_of(stubs, stubs.train(spec)).message
    assert f"the file of {model} is damaged" in message


def test_mnist_is_made_anew_where_it_is_damaged_when_a_server_starts(start_server):
    server = start_server()
    files = sorted((server.data_directory / "datasets").iterdir(), key=lambda file: file.stat().st_size)
    whole = [file.read_bytes() for file in files]
    assert server.drain() == 0
    flip(files[0])
    remove(files[1])
    start_server()
    assert [file.read_bytes() for file in files] == whole
