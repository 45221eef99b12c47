"""Tables over the wire: categories, missing values and names, from the upload to the answer."""

import json
from typing import Any

import numpy as np
import pytest
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

NAN = np.nan
COLUMNS: list[dict[str, Any]] = [
    {"name": "age", "kind": "number"},
    {"name": "deck", "kind": "category", "categories": ["a", "b", "c"]},
    {"name": "alone", "kind": "boolean"},
]
NAMES = {"class_names": '["no", "yes"]', "target_names": '["survived"]'}


def passengers(count, seed):
    """Rows (count, 3) with missing values, and labels that they tell."""
    random = np.random.default_rng(seed)
    age, deck, alone = random.uniform(1, 80, count), random.integers(0, 3, count), random.integers(0, 2, count)
    labels = ((age < 30) & (deck != 1)) | (alone == 1) & (deck == 2)
    rows = np.column_stack([age, deck, alone]).astype(np.float32)
    rows[random.random(count) < 0.1, 0] = NAN
    rows[random.random(count) < 0.1, 1] = NAN
    return rows, labels.astype(np.int64)


def upload(stubs, name, rows, metadata, **answers):
    content = save({"inputs": np.ascontiguousarray(rows)} | answers, metadata)
    return stubs.datasets.UploadDataset(upload_messages(name, content)).dataset


def columns(*said):
    return {"columns": json.dumps(said)}


def tensor(rows):
    rows = np.asarray(rows, np.float32)
    return types.Tensor(data_type=types.DATA_TYPE_FP32, shape=rows.shape, data=rows.tobytes())


def array(answer):
    kinds = {types.DATA_TYPE_FP32: np.float32, types.DATA_TYPE_FP64: np.float64, types.DATA_TYPE_INT64: np.int64}
    return np.frombuffer(answer.data, kinds[answer.data_type]).reshape(answer.shape)


def trained(stubs, spec, model_id):
    job = stubs.train(spec, model_id=model_id)
    assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    name = stubs.job(job.name).model_version
    return stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=name)).model_version


def predicted(stubs, model, rows):
    request = pb.PredictRequest(model=model.name, inputs=tensor(rows))
    return array(stubs.trainer.Predict(request).probabilities)


@pytest.fixture(scope="module")
def stored(stubs):
    rows, labels = passengers(600, seed=1)
    return upload(stubs, "table-passengers", rows, columns(*COLUMNS) | NAMES, labels=labels)


@pytest.fixture(scope="module")
def survivors(stubs, stored):
    """A model of the passengers."""
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 32, 0], standardize_inputs=True),
        train_dataset=stored.name,
        epoch_count=60,
        validation_fraction=0.2,
    )
    return trained(stubs, spec, "survivors")


def test_a_table_is_described_as_it_was_uploaded(stubs, stored):
    found = stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name=stored.name)).dataset
    assert found == stored
    assert [column.name for column in found.columns] == list(found.input_names) == ["age", "deck", "alone"]
    age, deck, alone = found.columns
    assert (deck.kind, list(deck.categories)) == (types.Column.KIND_CATEGORY, ["a", "b", "c"])
    assert (age.kind, alone.kind) == (types.Column.KIND_NUMBER, types.Column.KIND_BOOLEAN)
    assert age.missing_count > 30
    assert deck.missing_count > 30
    assert alone.missing_count == 0
    assert 1 <= age.minimum < age.mean < age.maximum <= 80
    assert not age.HasField("missing_value")
    assert (found.class_names, found.target_names) == (["no", "yes"], ["survived"])
    assert (found.input_size, found.encoded_size) == (3, 7)
    listed = stubs.datasets.ListDatasets(dataset_pb.ListDatasetsRequest(page_size=1000)).datasets
    (own,) = (dataset for dataset in listed if dataset.name == stored.name)
    assert (own.encoded_size, list(own.columns), list(own.class_names)) == (7, [], [])


def test_a_model_reads_rows_like_those_it_was_trained_on(stubs, survivors):
    assert survivors.spec.layer_sizes == [7, 32, 2]
    assert (survivors.input_size, survivors.class_names, survivors.target_names) == (3, ["no", "yes"], ["survived"])
    age, deck, alone = survivors.columns
    assert 30 < age.missing_value < 50
    assert not deck.HasField("missing_value")
    assert alone.missing_value in (0, 1)
    assert [column.marks_missing for column in survivors.columns] == [True, True, False]
    rows, labels = passengers(300, seed=2)
    request = pb.EvaluateRequest(model=survivors.name, include_confusion_matrix=True)
    request.rows.CopyFrom(pb.LabelledRows(inputs=tensor(rows)))
    request.rows.labels.CopyFrom(types.Tensor(data_type=types.DATA_TYPE_INT64, shape=[300], data=labels.tobytes()))
    answer = stubs.trainer.Evaluate(request)
    assert answer.correct_count > 255
    assert (predicted(stubs, survivors, rows).argmax(axis=1) == labels).sum() == answer.correct_count


def test_a_missing_number_counts_as_the_median_but_is_marked(stubs, survivors):
    median = survivors.columns[0].missing_value
    missing, given, unknown, other = predicted(stubs, survivors, [[NAN, 0, 0], [median, 0, 0], [9, -1, 0], [9, NAN, 0]])
    assert not np.array_equal(missing, given)
    assert not np.array_equal(unknown, other)
    unmarked, given = predicted(stubs, survivors, [[9, 0, NAN], [9, 0, survivors.columns[2].missing_value]])
    assert np.array_equal(unmarked, given)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([9, 3, 0], "inputs must be the place of a category, -1 to 2, in the column 'deck', got 3.0 at row 1"),
        ([9, 0.5, 0], "in the column 'deck', got 0.5 at row 1"),
        ([9, 0, 7], "inputs must be 0 or 1, in the column 'alone', got 7.0 at row 1"),
        ([np.inf, 0, 0], "inputs must be finite as float32, in the column 'age', got inf at row 1"),
    ],
)
def test_a_row_that_no_table_could_have_is_refused(stubs, survivors, row, sentence):
    request = pb.PredictRequest(model=survivors.name, inputs=tensor([[9, 0, 0], row]))
    refusal = refused(stubs.trainer.Predict, request)
    assert sentence in refusal.message
    assert (refusal.fields, refusal.metadata["rows"]) == (["inputs.data"], "1")


def test_a_data_set_is_scored_by_its_names_of_columns_categories_and_classes(stubs, stored, survivors):
    rows, labels = passengers(300, seed=3)
    same = upload(stubs, "table-same", rows, columns(*COLUMNS) | NAMES, labels=labels)
    order = np.array([2, 0, 1])  # the new place of a, b and c
    decks = np.where(np.isnan(rows[:, 1]), NAN, order[np.nan_to_num(rows[:, 1]).astype(int)])
    turned = np.column_stack([rows[:, 2], decks, rows[:, 0]]).astype(np.float32)
    said = columns(COLUMNS[2], COLUMNS[1] | {"categories": ["b", "c", "a"]}, COLUMNS[0])
    other = upload(stubs, "table-turned", turned, said | {"class_names": '["yes", "no"]'}, labels=1 - labels)
    found = [
        stubs.trainer.Evaluate(pb.EvaluateRequest(model=survivors.name, dataset=name, include_confusion_matrix=True))
        for name in (same.name, other.name)
    ]
    assert found[0].correct_count == found[1].correct_count > 255
    assert found[0].loss == found[1].loss
    assert found[0].confusion_matrix == found[1].confusion_matrix


@pytest.mark.parametrize(
    ("name", "said", "classes", "sentence"),
    [
        ("kind", [COLUMNS[0] | {"kind": "boolean"}], {}, "has a boolean in 'age', not a number"),
        (
            "class",
            [],
            {"class_names": '["no", "perhaps"]'},
            "must have the classes of models/survivors/versions/1, but ",
        ),
        ("names", None, {}, "has no names for its columns, while 'age' is not a plain number"),
    ],
)
def test_a_data_set_of_something_else_is_refused(stubs, stored, survivors, name, said, classes, sentence):
    rows = np.array([[1, 0, 0], [0, 1, 1], [1, 2, 0]], np.float32)
    metadata = {} if said is None else columns(*said, *COLUMNS[len(said) :])
    strange = upload(stubs, f"strange-{name}", rows, metadata | classes, labels=np.array([0, 1, 1]))
    refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=survivors.name, dataset=strange.name))
    assert sentence in refusal.message
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 8, 0]), train_dataset=stored.name, validation_dataset=strange.name
    )
    if name != "class":
        assert refused(stubs.train, spec).fields == ["spec.validation_dataset"]


def test_validation_data_with_fewer_categories_are_read_as_the_training_data_are(stubs, stored):
    rows, labels = passengers(200, seed=4)
    rows, labels = rows[rows[:, 1] == 2], labels[rows[:, 1] == 2]
    rows[:, 1] = 0
    said = columns(COLUMNS[0], COLUMNS[1] | {"categories": ["c"]}, COLUMNS[2])
    few = upload(stubs, "table-only-deck-c", rows, said, labels=labels)
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 32, 0], standardize_inputs=True),
        train_dataset=stored.name,
        validation_dataset=few.name,
        epoch_count=40,
    )
    events = stubs.events(stubs.train(spec).name)
    reports = [event.metrics_recorded for event in events if event.HasField("metrics_recorded")]
    assert [own for own in reports if own.split == pb.MetricsRecorded.SPLIT_VALIDATION][-1].accuracy > 0.85


def test_a_model_of_plain_numbers_takes_rows_that_lack_some(stubs):
    random = np.random.default_rng(8)
    rows = random.normal(5, 2, size=(200, 2)).astype(np.float32)
    labels = (rows[:, 0] > rows[:, 1]).astype(np.int64)
    plain = upload(stubs, "table-plain", rows, {"input_names": '["x", "y"]'}, labels=labels)
    holed = rows.copy()
    holed[::3, 0] = NAN
    lacking = upload(
        stubs, "table-lacking", holed, columns(*({"name": name, "kind": "number"} for name in "xy")), labels=labels
    )
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 16, 0]), train_dataset=plain.name, validation_dataset=lacking.name
    )
    model = trained(stubs, spec, "plain")
    median = np.median(rows[:, 0])
    assert model.columns[0].missing_value == pytest.approx(median)
    filled = rows.copy()
    filled[::3, 0] = median
    assert np.array_equal(predicted(stubs, model, holed), predicted(stubs, model, filled))
    answers = [stubs.trainer.Evaluate(pb.EvaluateRequest(model=model.name, dataset=lacking.name))]
    full = upload(stubs, "table-filled", filled, {"input_names": '["x", "y"]'}, labels=labels)
    start = pb.WarmStart(model=model.name, scope=pb.WarmStart.SCOPE_WEIGHTS)
    further = {
        trained(
            stubs, rings_spec(model=types.ModelSpec(), warm_start=start, train_dataset=name), "further"
        ).parameters_sha256
        for name in (lacking.name, full.name)
    }
    assert len(further) == 1
    answers.append(stubs.trainer.Evaluate(pb.EvaluateRequest(model=model.name, dataset=full.name)))
    assert answers[0].loss == answers[1].loss
    nameless = upload(stubs, "table-no-names", rows, {}, labels=labels)
    spec.train_dataset = nameless.name
    assert "must have a value everywhere for datasets/table-no-names" in refused(stubs.train, spec).message


def test_a_warm_start_reads_new_rows_as_its_model_does(stubs, survivors):
    rows, labels = passengers(100, seed=5)
    rows = rows[:, [1, 0, 2]]
    said = columns(COLUMNS[1] | {"categories": ["a", "b", "c", "d"]}, COLUMNS[0], COLUMNS[2])
    more = upload(stubs, "table-more", rows, said | NAMES, labels=labels)
    start = pb.WarmStart(model=survivors.name, scope=pb.WarmStart.SCOPE_WEIGHTS)
    version = trained(stubs, rings_spec(model=types.ModelSpec(), warm_start=start, train_dataset=more.name), "further")
    assert (version.columns, version.spec) == (survivors.columns, survivors.spec)
    assert version.parameters_sha256 != survivors.parameters_sha256


def test_numbers_far_from_one_are_learned_and_predicted_in_their_own_units(stubs):
    random = np.random.default_rng(6)
    rows = random.normal(size=(500, 2)).astype(np.float32)
    targets = np.column_stack([1e12 + 5_000 * rows[:, 0].astype(np.float64), -0.001 * rows[:, 1]])
    metadata = {"input_names": '["x", "y"]', "target_names": '["price", "slope"]'}
    prices = upload(stubs, "table-prices", rows, metadata, targets=targets)
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 32, 0]),
        loss=pb.Loss(standardize_targets=True),
        train_dataset=prices.name,
        epoch_count=60,
    )
    model = trained(stubs, spec, "prices")
    assert (model.target_names, model.spec.layer_sizes) == (["price", "slope"], [2, 32, 2])
    request = pb.PredictRequest(model=model.name, inputs=tensor(rows[:50]))
    values = array(stubs.trainer.Predict(request).values)
    assert np.abs(values[:, 0] - targets[:50, 0]).max() < 1_500
    assert np.abs(values[:, 1] - targets[:50, 1]).max() < 3e-4
    answer = stubs.trainer.Evaluate(pb.EvaluateRequest(model=model.name, dataset=prices.name, include_scores=True))
    assert answer.loss < 0.01
    assert answer.metrics["r2"] > 0.99
    assert 1 < answer.metrics["root_mean_squared_error"] < 1_000


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"task": "multiclass"}, "spec.loss.standardize_targets must be unset for task multiclass"),
        (
            {"train_dataset": "datasets/table-counts", "loss": pb.Loss(kind="poisson", standardize_targets=True)},
            "loss poisson",
        ),
    ],
)
def test_only_numbers_are_standardized(stubs, stored, fields, sentence):
    upload(stubs, "table-counts", np.ones((9, 2), np.float32), {}, targets=np.arange(9, dtype=np.float32)[:, None])
    spec = rings_spec(model=types.ModelSpec(layer_sizes=[0, 8, 0]), loss=pb.Loss(standardize_targets=True))
    spec.train_dataset = stored.name
    for name in fields:
        spec.ClearField(name)
    spec.MergeFrom(pb.TrainingSpec(**fields))
    assert sentence in refused(stubs.train, spec).message


def test_a_job_scores_its_model_on_test_data_at_the_end(stubs, stored):
    rows, labels = passengers(300, seed=7)
    test = upload(stubs, "table-held-back", rows, columns(*COLUMNS) | NAMES, labels=labels)
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 32, 0], standardize_inputs=True),
        train_dataset=stored.name,
        validation_fraction=0.2,
        test_dataset=test.name,
        epoch_count=500,
        early_stopping=pb.EarlyStopping(patience=3),
    )
    job = stubs.train(spec)
    assert job.spec.test_sha256 == test.sha256
    reports = [event.metrics_recorded for event in stubs.events(job.name) if event.HasField("metrics_recorded")]
    scores = [own for own in reports if own.split == pb.MetricsRecorded.SPLIT_TEST]
    assert scores == reports[-1:]
    assert scores[0].progress.epoch < 500
    request = pb.EvaluateRequest(model=stubs.job(job.name).model_version, dataset=test.name)
    answer = stubs.trainer.Evaluate(request)
    assert scores[0].loss == pytest.approx(answer.loss, rel=1e-5)
    assert scores[0].accuracy == answer.correct_count / 300 > 0.85


def test_test_data_that_do_not_fit_are_refused_before_the_run(stubs, stored, rings):
    for name, field in (("no-such-set", None), ("rings", "spec.test_dataset")):
        spec = rings_spec(
            model=types.ModelSpec(layer_sizes=[0, 8, 0]), train_dataset=stored.name, test_dataset=f"datasets/{name}"
        )
        refusal = refused(stubs.train, spec)
        assert (refusal.code.name, field in (*refusal.fields, None)) == (
            "INVALID_ARGUMENT" if field else "NOT_FOUND",
            True,
        )
    spec = rings_spec(test_dataset=stored.name)
    assert refused(stubs.train, spec).fields[-1] in ("spec.test_dataset", "spec.model.layer_sizes")


def test_a_run_that_fails_names_numbers_that_are_far_from_one(stubs):
    random = np.random.default_rng(9)
    rows = (1_000 * random.normal(size=(200, 2))).astype(np.float32)
    far = upload(stubs, "table-far", rows, {}, targets=2_000_000 + 5_000 * rows[:, :1])
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[0, 16, 0]),
        train_dataset=far.name,
        optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd()),
    )
    spec.schedule.learning_rate = 0.5
    error = stubs.events(stubs.train(spec).name)[-1].state_changed.error.message
    for part in (
        "targets go from ",
        "standardize_targets learns them",
        "inputs go from ",
        "standardize brings them near 1",
    ):
        assert part in error
    spec.loss.standardize_targets = spec.model.standardize_inputs = True
    spec.schedule.learning_rate = 0.01
    assert trained(stubs, spec, "near").task == "regression"
