"""The resolved spec: its canonical form and what can be counted from it."""

import json
from dataclasses import replace

import pytest
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.optimization.optimizers import OPTIMIZERS, Adam, Sgd
from mlpd.core.optimization.schedules import SCHEDULES, Joined, Segment, Steps
from mlpd.core.planning.memory import estimate_bytes
from mlpd.core.spec.training import (
    LossSpec,
    OptimizerSpec,
    PlateauSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
    WarmStartSpec,
)

from .family import FAMILY, ROWS, SPEC, optimized, run
from .test_rules import LABELLED

WARM = WarmStartSpec("models/a/versions/1", "ab", full=True)


@pytest.mark.parametrize(
    "spec", [*(case.spec for case in FAMILY.values()), replace(SPEC, warm_start=WARM)], ids=[*FAMILY, "warm start"]
)
def test_a_spec_survives_its_json(spec):
    again = TrainingSpec.from_json(spec.to_json())
    assert again == spec
    assert again.digest == spec.digest
    assert again.to_json() == spec.to_json()
    json.loads(spec.to_json())


@pytest.mark.parametrize("kind", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_survives_its_json(kind):
    spec = replace(SPEC, optimizer=OptimizerSpec(kind(), 0.1, 2.0, 0.9))
    assert TrainingSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["optimizer"]["kind"]["@kind"] == kind.name


@pytest.mark.parametrize("kind", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_survives_its_json(kind):
    joined = Joined((Segment(Steps(3, 0.5), 4), Segment(kind(), 5)))
    for shape in (kind(), joined):
        spec = replace(SPEC, schedule=ScheduleSpec(0.1, shape, PlateauSpec(0.5, 2, 0.01)))
        assert TrainingSpec.from_json(spec.to_json()) == spec


def test_numbers_that_are_whole_stay_what_they_are():
    spec = replace(SPEC, schedule=ScheduleSpec(1.0), time_limit_seconds=5.0)
    again = TrainingSpec.from_json(spec.to_json())
    assert type(again.schedule.learning_rate) is float
    assert type(again.batch_size) is int


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"optimizer": {"kind": {"@kind": "newton"}}}, KeyError),
        ({"optimizer": 3}, TypeError),
        ({"temperature": 1}, KeyError),
        ({"model": {}}, TypeError),
    ],
)
def test_fields_of_no_spec_are_refused(fields, error):
    with pytest.raises(error):
        from_fields(TrainingSpec, to_fields(SPEC) | fields)


def test_equal_specs_have_equal_digests_and_any_change_another():
    assert TrainingSpec.from_json(SPEC.to_json()).digest == SPEC.digest
    digests = {case.spec.digest for case in FAMILY.values()}
    assert len(digests) == len({case.spec for case in FAMILY.values()})
    assert len(digests) >= len(FAMILY) - 1
    assert replace(SPEC, seed=6).digest != SPEC.digest
    assert replace(SPEC, optimizer=OptimizerSpec(Sgd())).digest != SPEC.digest
    assert replace(SPEC, loss=LossSpec(label_smoothing=0.1)).digest != SPEC.digest


def test_the_family_uses_everything_that_has_a_name():
    specs = [case.spec for case in FAMILY.values()]
    assert {name for spec in specs for name in spec.model.activations} == set(ACTIVATIONS)
    assert {spec.optimizer.kind.name for spec in specs} == set(OPTIMIZERS)
    shapes = [spec.schedule.shape for spec in specs]
    inner = [segment.schedule for shape in shapes if isinstance(shape, Joined) for segment in shape.segments]
    assert {shape.name for shape in (*shapes, *inner)} == set(SCHEDULES)


def test_the_last_batch_of_an_epoch_may_be_smaller():
    assert replace(SPEC, batch_size=30, epoch_count=5).step_count(100) == 20


def test_steps_are_counted_in_accumulated_batches_of_the_rows_that_are_trained_on():
    spec = replace(SPEC, batch_size=10, accumulation_steps=3, epoch_count=2, validation=ValidationSpec(fraction=0.25))
    assert (spec.held_out_count(100), spec.train_row_count(100), spec.rows_per_step) == (25, 75, 30)
    assert (spec.steps_per_epoch(100), spec.step_count(100)) == (3, 6)


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
@pytest.mark.parametrize(("device", "least", "most"), [("cuda", 0, 2**20), ("cpu", 2**25, 2**27)])
def test_the_estimate_of_memory_covers_the_vectors_of_a_run(case, device, least, most):
    state = case.start()
    row_bytes = case.data.inputs.nbytes // ROWS
    estimate = estimate_bytes(replace(case.spec, device=device), replace(LABELLED, row_count=ROWS), row_bytes, 2)
    held = sum(vector.nbytes for vector in state.checkpoint().vectors.named().values())
    assert least + held < estimate < most


def test_the_estimate_for_a_gpu_counts_vectors_buffers_data_and_orders():
    """Parameters and gradients; rows of 20 inputs and 9, 8 and 3 outputs, forward and back; rows and two indices.

    And what validation has: weights of its own, and buffers for 512 rows.
    """
    parameters = 21 * 9 + 10 * 8 + 9 * 3
    spec = run(device="cuda", **optimized(Sgd())).spec
    validation = 4 * (parameters + 512 * (20 + 2 * (9 + 8 + 3) + 8 * 3))
    trained = 4 * (2 * parameters + 2 * 16 * (20 + 9 + 8 + 3)) + 100 * 36
    assert estimate_bytes(spec, LABELLED, 20, 2) == trained + validation


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_estimate_grows_with_all_that_is_kept(device):
    def estimate(**changes):
        return estimate_bytes(run(device=device, **changes).spec, LABELLED, 20, 2)

    plain = estimate(optimizer=OptimizerSpec(Sgd()))
    parameters = 4 * len(run().start().trained().model.parameters)
    adam, averaged = (
        estimate(optimizer=own) for own in (OptimizerSpec(Adam()), OptimizerSpec(Sgd(), average_decay=0.9))
    )
    if device == "cuda":
        assert (adam, averaged) == (plain + 2 * parameters, plain + parameters)
    assert plain < averaged < adam
    assert estimate(optimizer=OptimizerSpec(Sgd()), normalization="batch") > plain
    wider = estimate(optimizer=OptimizerSpec(Sgd()), dtype="float64")
    assert wider - estimate(optimizer=OptimizerSpec(Sgd())) > (plain / 2 if device == "cuda" else parameters)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("dtype", "size"), [("uint8", 4), ("int64", 8)])
def test_the_estimate_counts_inputs_and_targets_that_are_mixed(device, dtype, size):
    """Inputs in a type that can be, and shares of the next row's inputs and targets; 16 rows of 20 and of 3."""
    rows = replace(LABELLED, dtype=dtype)
    plain, mixed = (
        estimate_bytes(run(device=device, loss=LossSpec(mixup_alpha=alpha)).spec, rows, 20, 2) for alpha in (0.0, 0.2)
    )
    assert mixed - plain == 16 * (2 * 20 * size + 3 * 4)


def test_the_estimate_counts_a_compiler_and_what_each_block_has_of_its_own():
    changes = {"layer_sizes": (20, 640, 3), "activations": ("relu",), "dropout_rates": (0.0,)}
    parameters = 21 * 640 + 641 * 3

    def estimate(threads=2, **more):
        return estimate_bytes(run(**changes, **more).spec, LABELLED, 20, threads)

    compiled = {"runner": "compiled"}
    assert estimate() + 2**23 < estimate(**compiled) < 2**27
    assert estimate(4) > estimate(2)
    two, eight = (estimate(**compiled, split="rows", block_count=count) for count in (2, 8))
    assert eight - two > 6 * 4 * parameters  # a vector of gradients each
    assert estimate(**compiled) < estimate(**compiled, block_count=8) < eight


def test_the_runner_the_split_and_the_number_of_blocks_are_part_of_what_determines_a_run():
    specs = [SPEC, *(replace(SPEC, runner="compiled", block_count=count) for count in (1, 2, 3))]
    specs.append(replace(specs[-1], split="rows"))
    assert len({spec.digest for spec in specs}) == len(specs)
