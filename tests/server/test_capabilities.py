"""What a spec can ask for, from the request to the model that comes of it, over the wire."""

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

RANDOM = np.random.default_rng(6)
X = RANDOM.normal(size=(300, 4)).astype(np.float32)
SLOPES = np.array([[1.0, -2.0, 0.5, 0.0], [0.0, 1.0, 0.0, 3.0]], np.float32).T
NUMBERS = X @ SLOPES + 1
LABELS = (NUMBERS > 1).astype(np.uint8)
WEIGHTS = RANDOM.uniform(0.5, 2, size=300)
SHIFTED = X * [1, 10, 100, 1000] + [5, 50, 500, 5000]


@pytest.fixture(scope="module")
def data(stubs):
    """Data sets of every kind of target."""
    files: dict[str, dict[str, np.ndarray]] = {
        "numbers": {"inputs": X, "targets": NUMBERS},
        "counts": {"inputs": X, "targets": np.round(np.exp(X[:, :1] / 2))},
        "labels": {"inputs": X, "targets": LABELS, "weights": WEIGHTS},
        "halves": {"inputs": SHIFTED.astype(np.float64), "labels": LABELS[:, 0].astype(np.int64)},
    }
    for name, tensors in files.items():
        stubs.datasets.UploadDataset(upload_messages(name, save(tensors)))


@pytest.fixture(scope="module")
def of_numbers(stubs, data):
    """The version that a short job on ``numbers`` published."""
    return finished(stubs, spec_of("numbers", 4, 16, 2, epoch_count=1)).model_version


def spec_of(dataset, *sizes, **fields) -> pb.TrainingSpec:
    model = types.ModelSpec(layer_sizes=sizes)
    model.MergeFrom(fields.pop("model", types.ModelSpec()))
    spec = pb.TrainingSpec(
        model=model,
        train_dataset=f"datasets/{dataset}",
        batch_size=32,
        epoch_count=30,
        optimizer=pb.Optimizer(adam=pb.Optimizer.Adam()),
        schedule=pb.Schedule(learning_rate=0.01),
        seed=2,
    )
    for name in fields:
        spec.ClearField(name)  # type: ignore[arg-type]
    spec.MergeFrom(pb.TrainingSpec(**fields))
    return spec


def finished(stubs, spec, **fields) -> pb.TrainingJob:
    job = stubs.train(spec, **fields)
    ending = stubs.events(job.name)[-1].state_changed
    assert ending.to_state == pb.TrainingJob.STATE_SUCCEEDED, ending.error
    done: pb.TrainingJob = stubs.job(job.name)
    return done


def scored(stubs, job, dataset) -> pb.EvaluateResponse:
    request = pb.EvaluateRequest(model=job.model_version, dataset=f"datasets/{dataset}", include_scores=True)
    answer: pb.EvaluateResponse = stubs.trainer.Evaluate(request)
    return answer


def predicted(stubs, job, x, *outputs) -> pb.PredictResponse:
    inputs = types.Tensor(data_type=types.DATA_TYPE_FP32, shape=x.shape, data=x.astype("<f4").tobytes())
    request = pb.PredictRequest(model=job.model_version, inputs=inputs, outputs=outputs)
    answer: pb.PredictResponse = stubs.trainer.Predict(request)
    return answer


def array(tensor) -> np.ndarray:
    kinds = {types.DATA_TYPE_FP32: "<f4", types.DATA_TYPE_FP64: "<f8", types.DATA_TYPE_INT64: "<i8"}
    return np.frombuffer(tensor.data, kinds[tensor.data_type]).reshape(tuple(tensor.shape))


@pytest.mark.usefixtures("data")
class TestTasks:
    def test_regression_learns_numbers_and_predicts_values(self, stubs):
        job = finished(stubs, spec_of("numbers", 4, 32, 2, model=types.ModelSpec(data_type=types.DATA_TYPE_FP64)))
        assert (job.spec.task, job.spec.loss.kind) == ("regression", "mean_squared")
        scores = scored(stubs, job, "numbers")
        assert scores.metrics["r2"] > 0.95
        assert not scores.HasField("correct_count")
        answer = predicted(stubs, job, X[:5])
        assert answer.values.data_type == types.DATA_TYPE_FP64
        np.testing.assert_allclose(array(answer.values), NUMBERS[:5], atol=1)
        assert not answer.HasField("probabilities")
        metrics = [e.metrics_recorded for e in stubs.events(job.name) if e.HasField("metrics_recorded")]
        assert not any(m.HasField("accuracy") for m in metrics)

    @pytest.mark.parametrize("kind", ["mean_squared", "huber", "mean_absolute"])
    def test_regression_has_a_choice_of_losses(self, stubs, kind):
        job = finished(stubs, spec_of("numbers", 4, 16, 2, loss=pb.Loss(kind=kind)))
        assert scored(stubs, job, "numbers").metrics["r2"] > 0.8

    def test_counts_are_predicted_as_means(self, stubs):
        job = finished(stubs, spec_of("counts", 4, 16, 1, loss=pb.Loss(kind="poisson")))
        assert (array(predicted(stubs, job, X).values) > 0).all()
        assert scored(stubs, job, "counts").metrics["r2"] > 0.5

    def test_labels_that_do_not_exclude_each_other(self, stubs):
        job = finished(stubs, spec_of("labels", 4, 16, 2))
        assert job.spec.task == "multilabel"
        scores = scored(stubs, job, "labels")
        assert scores.correct_count / 300 == pytest.approx(scores.metrics["accuracy"])
        assert scores.metrics["label_accuracy"] > 0.9
        assert [own.row_count for own in scores.class_scores] == LABELS.sum(axis=0).tolist()
        answer = predicted(stubs, job, X, pb.OUTPUT_KIND_ALL)
        shares, decisions = array(answer.probabilities), array(answer.classes)
        assert np.array_equal(decisions, (shares > 0.5).astype(int))

    def test_two_classes_by_one_output(self, stubs):
        model = types.ModelSpec(standardize_inputs=True)
        job = finished(stubs, spec_of("halves", 4, 16, 1, model=model, loss=pb.Loss(balanced_classes=True)))
        assert job.spec.task == "binary"
        assert len(job.spec.loss.class_weights) == 2
        request = pb.EvaluateRequest(
            model=job.model_version, dataset="datasets/halves", include_confusion_matrix=True, include_scores=True
        )
        answer = stubs.trainer.Evaluate(request)
        assert array(answer.confusion_matrix).trace() == answer.correct_count > 280
        assert answer.metrics["roc_auc"] > 0.95
        answer = predicted(stubs, job, SHIFTED, pb.OUTPUT_KIND_ALL)
        shares = array(answer.probabilities)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
        assert np.array_equal(shares.argmax(axis=1), array(answer.classes))


@pytest.mark.usefixtures("data")
class TestRuns:
    @pytest.mark.parametrize("kind", ["sgd", "adam", "rmsprop", "adagrad", "lion"])
    def test_every_optimizer_lowers_the_loss(self, stubs, kind):
        optimizer = pb.Optimizer(clip_norm=5, average_decay=0.9, weight_decay=0.01)
        getattr(optimizer, kind).SetInParent()
        job = finished(stubs, rings_spec(optimizer=optimizer, epoch_count=5))
        events = stubs.events(job.name)
        losses = [e.metrics_recorded.loss for e in events if e.HasField("metrics_recorded")]
        assert losses[-1] < losses[0]
        assert stubs.job(job.name).spec.optimizer.WhichOneof("kind") == kind

    def test_schedules_shape_the_rate(self, stubs):
        rise = pb.Schedule(polynomial=pb.Schedule.Polynomial(initial_share=0.5, final_share=1))
        fall = pb.Schedule(steps=pb.Schedule.Steps(interval_steps=12))
        segments = [
            pb.Schedule.Segment(schedule=rise, step_count=12),
            pb.Schedule.Segment(schedule=fall),
        ]
        joined = pb.Schedule(learning_rate=0.01, joined=pb.Schedule.Joined(segments=segments))
        job = finished(stubs, rings_spec(schedule=joined, metrics_interval_steps=6))
        events = stubs.events(job.name)
        rates = [e.metrics_recorded.learning_rate for e in events if e.HasField("metrics_recorded")]
        expected = [0.005 + 0.005 * 5 / 12, 0.005 + 0.005 * 11 / 12, 0.01, 0.01, 0.001, 0.001]
        assert rates == pytest.approx(expected)
        assert job.spec.schedule == pb.Schedule(
            learning_rate=0.01,
            joined=pb.Schedule.Joined(
                segments=[
                    pb.Schedule.Segment(
                        schedule=pb.Schedule(polynomial=pb.Schedule.Polynomial(power=1, initial_share=0.5, final_share=1)),
                        step_count=12,
                    ),
                    pb.Schedule.Segment(schedule=pb.Schedule(steps=pb.Schedule.Steps(interval_steps=12, factor=0.1))),
                ]
            ),
        )  # fmt: skip

    def test_rows_are_held_out_and_the_best_weights_kept(self, stubs):
        spec = rings_spec(
            epoch_count=200,
            validation_fraction=0.25,
            early_stopping=pb.EarlyStopping(patience=3, metric="accuracy"),
            schedule=pb.Schedule(learning_rate=0.05, plateau=pb.Schedule.Plateau(patience=2)),
        )
        job = finished(stubs, spec)
        events = stubs.events(job.name)
        validations = [
            e.metrics_recorded.accuracy
            for e in events
            if e.metrics_recorded.split == pb.MetricsRecorded.SPLIT_VALIDATION
        ]
        assert job.progress.epoch == len(validations) < 200
        assert max(validations[-3:]) <= max(validations[:-3])
        best = validations.index(max(validations)) + 1
        messages = [e.message_logged.message for e in events if e.HasField("message_logged")]
        reason = f"the validation accuracy has not improved for 3 validations; the weights of epoch {best} are kept"
        assert messages == [f"the run ends after step {job.progress.step}: {reason}"]

    def test_a_time_limit_ends_a_run_with_what_it_has(self, stubs):
        finished(stubs, rings_spec(epoch_count=1, batch_size=1))  # which compiles what the other then only loads
        job = finished(stubs, rings_spec(epoch_count=1_000_000, batch_size=1, time_limit=Duration(seconds=1)))
        assert 0 < job.progress.epoch < 1_000_000
        assert job.model_version

    def test_images_can_be_augmented_and_networks_dressed(self, stubs):
        model = types.ModelSpec(
            layer_sizes=[784, 16, 16, 10],
            activations=["gelu", "silu"],
            dropout_rates=[0.1],
            input_dropout_rate=0.1,
            normalization="batch",
            initializer="orthogonal",
        )
        spec = rings_spec(
            model=model,
            train_dataset="datasets/mnist-test",
            batch_size=250,
            accumulation_steps=2,
            augmentation=pb.Augmentation(shift_pixels=2, elastic_pixels=0.5),
            loss=pb.Loss(label_smoothing=0.1, mixup_alpha=0.2),
        )
        job = finished(stubs, spec)
        assert (job.progress.step_count, job.spec.augmentation.image_width) == (60, 28)
        assert list(job.spec.model.dropout_rates) == [0.1, 0.1]
        version = stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=job.model_version)).model_version
        assert version.spec == job.spec.model
        assert scored(stubs, job, "mnist-test").metrics["accuracy"] > 0.8


@pytest.mark.usefixtures("data")
class TestWarmStarts:
    def test_a_run_goes_on_from_a_model(self, stubs):
        first = finished(stubs, spec_of("numbers", 4, 16, 2, epoch_count=15))
        losses = {}
        for scope in (pb.WarmStart.SCOPE_WEIGHTS, pb.WarmStart.SCOPE_FULL):
            warm = pb.WarmStart(model=first.model_version.rpartition("/versions/")[0], scope=scope)
            job = finished(stubs, spec_of("numbers", warm_start=warm, epoch_count=15))
            assert job.spec.model == first.spec.model
            assert job.spec.warm_start.model == first.model_version
            assert len(job.spec.warm_start.sha256) == 64
            losses[scope] = scored(stubs, job, "numbers").loss
        assert max(losses.values()) < scored(stubs, first, "numbers").loss
        assert len(set(losses.values())) == 2

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"optimizer": pb.Optimizer(lion=pb.Optimizer.Lion())}, "spec.optimizer"),
            ({"model": types.ModelSpec(layer_sizes=[4, 8, 2])}, "spec.model.layer_sizes"),
            ({"model": types.ModelSpec(layer_sizes=[4, 16, 2], activations=["tanh"])}, "spec.model.activations"),
        ],
    )
    def test_a_model_that_does_not_fit_is_refused(self, stubs, of_numbers, fields, field):
        warm = pb.WarmStart(model=of_numbers, scope=pb.WarmStart.SCOPE_FULL)
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=spec_of("numbers", warm_start=warm, **fields)))
        assert refusal.fields == [field]

    def test_the_scope_must_be_said(self, stubs, model):
        warm = pb.WarmStart(model=model)
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=rings_spec(warm_start=warm)))
        assert refusal.fields == ["spec.warm_start.scope"]
        assert "WEIGHTS or FULL" in refusal.message


@pytest.mark.usefixtures("data")
class TestRefusals:
    @pytest.mark.parametrize(
        ("spec", "fields"),
        [
            (spec_of("numbers", 4, 3), {"spec.model.layer_sizes"}),
            (spec_of("numbers", 4, 2, task="multiclass"), {"spec.train_dataset"}),
            (spec_of("labels", 4, 2, task="ranking"), {"spec.task"}),
            (spec_of("halves", 4, 2, task="regression"), {"spec.train_dataset"}),
            (spec_of("numbers", 4, 2, task="multilabel"), {"spec.train_dataset"}),
            (spec_of("numbers", 4, 2, loss=pb.Loss(kind="poisson")), {"spec.train_dataset"}),
            (spec_of("numbers", 4, 2, loss=pb.Loss(kind="hinge")), {"spec.loss.kind"}),
            (spec_of("numbers", 4, 2, loss=pb.Loss(label_smoothing=0.1)), {"spec.loss.label_smoothing"}),
            (spec_of("numbers", 4, 2, loss=pb.Loss(kind="huber", huber_delta=0)), {"spec.loss.huber_delta"}),
            (spec_of("numbers", 4, 2, loss=pb.Loss(huber_delta=2)), {"spec.loss.huber_delta"}),
            (spec_of("halves", 4, 1, loss=pb.Loss(class_weights=[1])), {"spec.loss.class_weights"}),
            (
                spec_of("halves", 4, 1, loss=pb.Loss(class_weights=[1, 1], balanced_classes=True)),
                {"spec.loss.class_weights"},
            ),
            (spec_of("halves", 4, 1, loss=pb.Loss(mixup_alpha=2)), {"spec.loss.mixup_alpha"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 3], data_type=types.DATA_TYPE_FP16)), {"spec.model.data_type"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 4, 3], activations=["relu", "relu"])), {"spec.model.activations"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 4, 3], activations=["softsign"])), {"spec.model.activations"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 4, 3], dropout_rates=[1])), {"spec.model.dropout_rates"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 3], normalization="group")), {"spec.model.normalization"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 3], standardize_inputs=True, input_scale=2)), {"spec.model.input_scale"}),
            (rings_spec(validation_fraction=1), {"spec.validation_fraction"}),
            (rings_spec(validation_fraction=0.1, validation_dataset="datasets/rings"), {"spec.validation_fraction"}),
            (rings_spec(validation_fraction=0.0001), {"spec.validation_fraction"}),
            (rings_spec(validation_interval_epochs=0), {"spec.validation_interval_epochs"}),
            (rings_spec(accumulation_steps=0), {"spec.accumulation_steps"}),
            (rings_spec(early_stopping=pb.EarlyStopping()), {"spec.early_stopping"}),
            (rings_spec(early_stopping=pb.EarlyStopping(metric="f1"), validation_fraction=0.5), {"spec.early_stopping.metric"}),
            (rings_spec(schedule=pb.Schedule(learning_rate=1, plateau=pb.Schedule.Plateau())), {"spec.schedule.plateau"}),
            (rings_spec(schedule=pb.Schedule(learning_rate=1, steps=pb.Schedule.Steps())), {"spec.schedule.steps.interval_steps"}),
            (rings_spec(schedule=pb.Schedule(learning_rate=1, joined=pb.Schedule.Joined())), {"spec.schedule.joined.segments"}),
            (rings_spec(augmentation=pb.Augmentation(shift_pixels=1)), {"spec.augmentation", "spec.augmentation.image_height", "spec.augmentation.image_width"}),
            (rings_spec(validation_fraction=float("nan")), {"spec.validation_fraction"}),
            (rings_spec(task="x" * 100_000), {"spec.task"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[2, 4, 3], activations=["x"] * 100_000)), {"spec.model.activations"}),
            (rings_spec(model=types.ModelSpec(layer_sizes=[-2, 3]), augmentation=pb.Augmentation()), {"spec.model.layer_sizes", "spec.augmentation", "spec.augmentation.image_height", "spec.augmentation.image_width"}),
            (rings_spec(time_limit=Duration(seconds=-1)), {"spec.time_limit"}),
            (rings_spec(optimizer=pb.Optimizer(lion=pb.Optimizer.Lion(), clip_norm=-1)), {"spec.optimizer.clip_norm"}),
            (rings_spec(optimizer=pb.Optimizer(lion=pb.Optimizer.Lion(), average_decay=1)), {"spec.optimizer.average_decay"}),
        ],
    )  # fmt: skip
    def test_every_rule_names_its_field(self, stubs, spec, fields):
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=spec))
        assert set(refusal.fields) == fields, refusal.message
        assert len(refusal.message) < 1000

    def test_unknown_fields_are_found_inside_lists(self, stubs):
        segment = pb.Schedule.Segment.FromString(b"\xf8\x07\x01")  # field 127
        schedule = pb.Schedule(learning_rate=0.1, joined=pb.Schedule.Joined(segments=[segment]))
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=rings_spec(schedule=schedule)))
        assert "spec.schedule.joined.segments[0].127" in refusal.fields

    def test_a_run_that_can_not_fit_is_refused_before_it_starts(self, stubs):
        spec = rings_spec(
            model=types.ModelSpec(layer_sizes=[2, *[1_000_000, 1] * 31, 3], normalization="batch"), batch_size=600
        )
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=spec))
        assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "DEVICE_MEMORY")
        assert int(refusal.metadata["needed_bytes"]) > int(refusal.metadata["device_bytes"])

    def test_an_elastic_deformation_that_can_not_fit_is_refused_before_it_starts(self, stubs):
        augmentation = pb.Augmentation(elastic_pixels=1, elastic_smoothness_pixels=1)
        stubs.datasets.UploadDataset(upload_messages("wide", save({"inputs": np.zeros((2, 640_000), np.uint8), "labels": np.arange(2)})))  # fmt: skip
        spec = rings_spec(
            train_dataset="datasets/wide",
            batch_size=1,
            model=types.ModelSpec(layer_sizes=[640_000, 2]),
            augmentation=augmentation,
        )
        refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=spec))
        assert refusal.reason == "DEVICE_MEMORY"

    def test_outputs_must_be_those_of_the_task(self, stubs, model):
        inputs = types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[1, 2], data=bytes(8))
        request = pb.PredictRequest(model=model, inputs=inputs, outputs=[pb.OUTPUT_KIND_VALUES])
        refusal = refused(stubs.trainer.Predict, request)
        assert refusal.fields == ["outputs"]
        assert "CLASSES, LOGITS, PROBABILITIES for task multiclass" in refusal.message

    def test_numbers_can_not_be_scored_as_classes(self, stubs, model):
        refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=model, dataset="datasets/numbers"))
        assert (refusal.reason, refusal.fields) == ("SHAPE_MISMATCH", ["dataset"])
        assert "got 4 and 2 numbers as targets" in refusal.message
