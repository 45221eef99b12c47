"""Model files and checkpoints: whole, verified, or refused."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.files import write_atomic
from mlpd.core.models.model import Model, load_model, load_trained, save_model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import Huber, SoftmaxCrossEntropy
from mlpd.core.network.network import initial_parameters
from mlpd.core.network.scaling import Scaling
from mlpd.core.state_file import StateFileError, pack, unpack
from mlpd.core.training.checkpoint import load_checkpoint, save_checkpoint

from .family import FAMILY, finish, run

SPEC = ModelSpec.plain((5, 7, 3), input_scale=0.5)
MODEL = Model(
    SPEC,
    "multiclass",
    SoftmaxCrossEntropy(),
    initial_parameters(SPEC.layers(), "he_normal", 1, "float32"),
    np.zeros(0, np.float32),
    Scaling(None, 0.5),
)


def saved(path, model=MODEL, moments=None, step=0):
    return save_model(path, model, moments or {}, step, {"training_job": "a"}).sha256


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_trained_model_survives_its_file(case, tmp_path):
    state = case.start()
    finish(state)
    trained = state.trained()
    loaded = load_trained(tmp_path / "m", saved(tmp_path / "m", trained.model, trained.moments, trained.optimizer_step))
    assert loaded.model.sha256 == trained.model.sha256
    assert (loaded.model.spec, loaded.model.task, loaded.model.loss) == (
        trained.model.spec,
        trained.model.task,
        trained.model.loss,
    )
    assert loaded.optimizer_step == trained.optimizer_step == state.step
    assert {name: vector.tobytes() for name, vector in loaded.moments.items()} == {
        name: vector.tobytes() for name, vector in trained.moments.items()
    }
    inputs = case.data.inputs
    found, expected = (Predictor(Cpu(), model, 64).outputs(inputs) for model in (loaded.model, trained.model))
    assert found.tobytes() == expected.tobytes()


def test_a_models_digest_is_that_of_its_weights_alone():
    assert replace(MODEL, task="regression", loss=Huber()).sha256 == MODEL.sha256
    changed = MODEL.parameters.copy()
    changed[0] = np.nextafter(changed[0], np.float32(9))
    assert replace(MODEL, parameters=changed).sha256 != MODEL.sha256
    assert replace(MODEL, statistics=np.zeros(1, np.float32)).sha256 != MODEL.sha256


@pytest.mark.parametrize("position", [0, 9, 100, -1])
def test_a_file_with_one_changed_byte_is_refused(tmp_path, position):
    digest = saved(tmp_path / "m")
    content = bytearray((tmp_path / "m").read_bytes())
    content[position] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(StateFileError, match="must have the SHA-256"):
        load_model(tmp_path / "m", digest)


def test_a_torn_file_is_refused(tmp_path):
    digest = saved(tmp_path / "m")
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-1])
    with pytest.raises(StateFileError):
        load_model(tmp_path / "m", digest)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    digest = saved(tmp_path / "m")
    (tmp_path / "m.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        saved(tmp_path / "m", step=1)
    assert load_model(tmp_path / "m", digest).spec == SPEC


@pytest.mark.parametrize(
    ("vectors", "fields", "sentence"),
    [
        ({}, {"loss": "of words"}, "must hold a model: Loss must be read from a dict, got 'of words'"),
        ({}, {"task": "cooking"}, "must be of a known task, got cooking"),
        ({}, {"model": {}}, "must hold a model"),
        ({}, {"model": 3}, "must hold a model"),
        ({}, {"optimizer_step": None}, "must hold a model"),
        ({"parameters": np.zeros(65, np.float32)}, {}, "must hold 66 parameters of float32"),
        ({"parameters": np.zeros(66)}, {}, "must hold 66 parameters of float32"),
        ({"statistics": np.zeros(14, np.float32)}, {}, "must hold 0 statistics of float32"),
    ],
)
def test_a_whole_file_that_holds_no_model_is_refused(tmp_path, vectors, fields, sentence):
    digest = saved(tmp_path / "m")
    sound_vectors, sound_fields = unpack(tmp_path / "m", digest)
    digest = write_atomic(tmp_path / "m", pack(sound_vectors | vectors, sound_fields | fields)).sha256
    with pytest.raises(StateFileError, match=sentence):
        load_model(tmp_path / "m", digest)


@pytest.mark.parametrize("name", ["adamw", "batch norm", "stopped early", "clipped and averaged"])
def test_a_checkpoint_survives_its_file(name, tmp_path):
    state = FAMILY[name].start()
    finish(state)
    checkpoint = state.checkpoint()
    loaded = load_checkpoint(tmp_path / "c", save_checkpoint(tmp_path / "c", checkpoint).sha256)
    assert loaded.counters == checkpoint.counters
    assert {name: vector.tobytes() for name, vector in loaded.vectors.named().items()} == {
        name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()
    }


def test_a_model_is_no_checkpoint(tmp_path):
    digest = saved(tmp_path / "m")
    with pytest.raises(StateFileError, match="m must hold a checkpoint"):
        load_checkpoint(tmp_path / "m", digest)


def test_a_file_of_another_program_is_refused(tmp_path):
    digest = write_atomic(tmp_path / "m", b"PK\x03\x04 and more").sha256
    with pytest.raises(StateFileError, match="must be a safetensors file written by mlpd"):
        load_model(tmp_path / "m", digest)


def test_equal_runs_give_equal_files(tmp_path):
    digests = []
    for name in ("a", "b"):
        state = run().start()
        finish(state)
        trained = state.trained()
        digests.append(saved(tmp_path / name, trained.model, trained.moments, trained.optimizer_step))
    assert digests[0] == digests[1]
