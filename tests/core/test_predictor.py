"""Compiled predictions: those of NumPy to rounding, and a row's the same bits however it comes."""

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="llvmlite is not installed")

from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.execution.compiled import CompiledRunner
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.predictor import CompiledPredictor, Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import SigmoidCrossEntropy
from mlpd.core.network.scaling import Scaling

from .family import model_of
from .test_any_network import NETWORKS, draw

WIDE = ModelSpec.plain((300, 520, 10), input_scale=1 / 255)  # whose first product copies nothing for few rows


def rows(count, width=300, seed=4):
    return np.random.default_rng(seed).integers(0, 256, (count, width), np.uint8)


def test_ctrl_c_leaves_no_thread_in_rows_that_are_over(monkeypatch):
    """It is raised when compiled code returns, while another thread may still be in it."""
    compiled, inputs = CompiledPredictor(model_of(WIDE), 64, 2), rows(64)
    expected, runner = compiled.outputs(inputs), compiled._runner
    assert isinstance(runner, CompiledRunner)
    loop = runner._loop

    def interrupted(chunk, number):
        loop(chunk, number)
        if number == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_loop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiled.outputs(inputs)
    monkeypatch.undo()
    assert runner._done.empty()
    assert compiled.outputs(inputs).tobytes() == expected.tobytes()
    compiled.close()


def test_rows_of_yes_and_no_are_numbers():
    case = draw(0)
    model = model_of(case.spec.model, case.spec.task, case.spec.loss.kind)
    inputs = np.random.default_rng(1).integers(0, 2, (33, case.spec.model.layer_sizes[0])).astype(bool)
    compiled = CompiledPredictor(model, 64)
    found, expected = compiled.outputs(inputs), compiled.outputs(inputs.astype(np.uint8))
    compiled.close()
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_any_network_predicts_what_it_predicts_call_by_call(seed):
    case = draw(seed)
    spec, inputs = case.spec.model, case.data.inputs
    scaling = Scaling.of(spec, inputs)
    model = model_of(spec, case.spec.task, case.spec.loss.kind, scaling, seed)
    expected = Predictor(Cpu(), model, 20).predict(inputs)
    for capacity, thread_count in ((64, 1), (20, 2), (64, 3)):
        compiled = CompiledPredictor(model, capacity, thread_count)
        found = compiled.predict(inputs)
        compiled.close()
        for own, plain in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, plain, rtol=1e-10, atol=1e-11)


def test_a_row_has_the_same_bits_in_any_company_on_any_number_of_threads():
    model, inputs = model_of(WIDE), rows(200)
    alone = CompiledPredictor(model, 1)
    expected = [alone.predict(inputs[i : i + 1]) for i in range(len(inputs))]
    whole = [np.concatenate(parts) for parts in zip(*expected, strict=True)]
    for thread_count in (1, 2, 3, 5):
        predictor = CompiledPredictor(model, 128, thread_count)
        for start, count in ((0, 1), (1, 2), (3, 5), (8, 17), (20, 48), (68, 49), (0, 128), (0, 200)):
            chosen = slice(start, start + count)
            for found, bits in zip(predictor.predict(inputs[chosen]), whole, strict=True):
                assert found.tobytes() == bits[chosen].tobytes(), (thread_count, start, count)
        predictor.close()


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int16", "int32", "int64", "uint16", "uint32", ">f4", ">i8"]
)
def test_the_same_rows_in_another_type_give_the_same_bits(dtype):
    predictor, inputs = CompiledPredictor(model_of(WIDE), 16), rows(30)
    assert predictor.outputs(inputs.astype(dtype)).tobytes() == predictor.outputs(inputs).tobytes()


def test_large_whole_numbers_of_a_type_that_compiled_code_does_not_know_keep_all_their_digits():
    spec = ModelSpec.plain((300, 7, 3), standardize_inputs=True)
    inputs = rows(40).astype(np.uint32) + np.uint32(2**27)  # where float32 has every sixteenth
    model = model_of(spec, scaling=Scaling.of(spec, inputs))
    assert model.scaling.move is None
    expected = Predictor(Cpu(), model, 16).outputs(inputs)
    np.testing.assert_allclose(CompiledPredictor(model, 16).outputs(inputs), expected, rtol=1e-3, atol=1e-4)


def test_columns_that_are_moved_are_moved_once():
    spec = ModelSpec.plain((300, 7, 3), standardize_inputs=True)
    inputs = rows(40).astype(float) * 1e-60
    model = model_of(spec, scaling=Scaling.of(spec, inputs))
    assert model.scaling.move
    expected = Predictor(Cpu(), model, 16).outputs(inputs)
    np.testing.assert_allclose(CompiledPredictor(model, 16).outputs(inputs), expected, rtol=1e-3, atol=1e-4)


def test_what_overflows_shows_in_the_outputs_of_its_row_alone():
    predictor, inputs = CompiledPredictor(model_of(replace(WIDE, input_scale=1.0)), 16), rows(20).astype(np.float32)
    expected = predictor.outputs(inputs)
    inputs[3] = 1e38
    outputs, predictions = predictor.predict(inputs)
    others = np.arange(20) != 3
    assert not np.isfinite(outputs[3]).all()
    assert not np.isfinite(predictions[3]).all()
    assert np.array_equal(outputs[others], expected[others])


def test_small_probabilities_keep_their_digits():
    spec = ModelSpec.plain((1, 1))
    model = replace(model_of(spec, "binary", SigmoidCrossEntropy()), parameters=np.array([1, 0], np.float32))
    inputs = np.array([[-80.0], [-20.0], [20.0], [200.0]], np.float32)
    _, found = CompiledPredictor(model, 16).predict(inputs)
    small = np.exp(-np.abs(inputs[:, 0].astype(float)))
    expected = np.stack([1 / (1 + small), small / (1 + small)], axis=1)
    expected[2:] = expected[2:, ::-1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-40)


def test_evaluations_are_those_of_numpy():
    model, data = model_of(WIDE), Dataset(rows(100), rows(100, 1)[:, 0] % 10)
    *_, found = evaluate(CompiledPredictor(model, 32), data, include_confusion=True, include_scores=True)
    *_, expected = evaluate(Predictor(Cpu(), model, 32), data, include_confusion=True, include_scores=True)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.correct_count == expected.correct_count
    assert found.scores is not None
    assert found.confusion is not None
    assert expected.confusion is not None
    assert np.array_equal(found.confusion, expected.confusion)


def test_what_is_closed_leaves_no_threads():
    before = threading.active_count()
    predictor = CompiledPredictor(model_of(WIDE), 64, 3)
    predictor.predict(rows(64))
    assert threading.active_count() == before + 2
    predictor.close()
    assert threading.active_count() == before
