"""A caller meets a setting by one name: in Python by its own, on the command line as its flag."""

import json
from typing import Any

import pytest
from mlpd.client import Client, InvalidRequest, training_spec
from mlpd.client.calls import full_address
from mlpd.client.vocabulary import flag_of, in_flags, in_settings

from ..command_line import run


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("spec.schedule.learning_rate must be above 0, got 0", "learning_rate must be above 0, got 0"),
        ("spec.optimizer.sgd.momentum must be below 1", "momentum must be below 1"),
        ("spec.model.standardize_inputs must be unset", "standardize must be unset"),
        ("spec.optimizer must say one of sgd", "optimizer must say one of sgd"),
        (
            "spec.schedule.joined.segments[1].step_count must be at least 1",
            "schedule.joined.segments[1].step_count must be at least 1",
        ),
        ("spec.batch_size must be 1; spec.epoch_count must be 2", "batch_size must be 1; epoch_count must be 2"),
        ("specification.x stays", "specification.x stays"),
    ],
)
def test_fields_of_a_spec_are_told_as_settings(sentence, told):
    field = sentence.split()[0]
    with pytest.raises(InvalidRequest) as caught, in_settings():
        raise InvalidRequest(sentence, "FIELD_INVALID", {field: sentence}, {"rows": "3"})
    assert (str(caught.value), caught.value.reason, caught.value.metadata) == (told, "FIELD_INVALID", {"rows": "3"})
    assert caught.value.fields == {told.split()[0]: told}


def test_settings_are_told_as_flags():
    with pytest.raises(InvalidRequest) as caught, in_flags():
        raise InvalidRequest("learning_rate must be above 0; epoch_count must be 1; seed 3 is a seed")
    assert str(caught.value) == "--learning-rate must be above 0; --epoch-count must be 1; seed 3 is a seed"
    assert (flag_of("standardize"), flag_of("train_dataset")) == ("--standardize", "--train-dataset")


def test_a_server_s_refusal_names_settings_in_python_and_in_files_and_flags_on_the_command_line(server, tmp_path):
    settings: dict[str, Any] = {
        "layer_sizes": [784, 10],
        "train_dataset": "mnist-train",
        "epoch_count": 0,
        "learning_rate": 0.1,
    }
    with Client(server.address) as client, pytest.raises(InvalidRequest, match=r"^epoch_count must be") as caught:
        client.train(training_spec(**settings))
    assert list(caught.value.fields) == ["epoch_count"]
    flags = ["--layer-sizes", "784,10", "--train-dataset", "mnist-train", "--learning-rate", "0.1"]
    done = run("train", *flags, "--epoch-count", "0", server=server)
    assert done.stderr.startswith("mlpd: --epoch-count must be between 1 and 1000000, got 0")
    (tmp_path / "run.toml").write_text("epoch_count = 0\n")
    done = run("train", *flags, "--config", tmp_path / "run.toml", server=server)
    assert done.stderr.startswith("mlpd: epoch_count must be between 1 and 1000000, got 0")


@pytest.mark.parametrize(
    ("address", "full"),
    [
        ("gpu-box", "gpu-box:6573"),
        ("gpu-box:80", "gpu-box:80"),
        ("10.0.0.1", "10.0.0.1:6573"),
        ("[::1]", "[::1]:6573"),
        ("[::1]:9", "[::1]:9"),
        ("unix:/run/mlpd.sock", "unix:/run/mlpd.sock"),
    ],
)
def test_an_address_without_a_port_has_the_default_one(address, full):
    assert full_address(address) == full


@pytest.mark.parametrize("address", ["http://gpu-box:6573", "https://gpu-box", "grpc://x", ""])
def test_an_address_that_is_a_url_is_explained(address):
    with pytest.raises(InvalidRequest, match=r"server must be host:port, like 127.0.0.1:6573, got "):
        Client(address)
    done = run("info", "--server", address)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "server must be host:port" in done.stderr


def test_a_name_that_is_not_there_brings_the_one_that_was_meant(server, tmp_path):
    rows = tmp_path / "t.csv"
    rows.write_text("width,species\n1,a\n2,b\n3,a\n4,b\n")
    done = run("datasets", "add", "flowers", rows, "--target", "specis", server=server)
    assert done.stderr == "mlpd: target must be one of width, species, got specis; did you mean species?\n"
    assert run("datasets", "add", "flowers", rows, server=server).returncode == 0
    done = run("datasets", "show", "flowrs", server=server)
    assert done.stderr == "mlpd: there is no data set 'flowrs'; did you mean flowers?\n"
    done = run("train", "--train-dataset", "flowrs", "--preset", "default", server=server)
    assert done.stderr == "mlpd: there is no data set 'flowrs'; did you mean flowers?\n"
    (tmp_path / "run.toml").write_text("epoch_cuont = 3\n")
    assert "got epoch_cuont; did you mean epoch_count?" in run("train", "--config", tmp_path / "run.toml").stderr
    flags = ["--layer-sizes", "0,4,0", "--optimizer", "adam", "--learning-rate", "0.01", "--epoch-count", "1"]
    trained = run("train", "--train-dataset", "flowers", *flags, "--model-id", "bouquet", server=server)
    assert trained.returncode == 0, trained.stderr
    done = run("evaluate", "bouqet", "flowers", server=server)
    assert done.stderr == "mlpd: there is no model 'models/bouqet'; did you mean bouquet?\n"


def test_what_the_data_chose_can_be_unchosen(server, tmp_path):
    rows = tmp_path / "unchosen.csv"
    rows.write_text("a,b,y\n" + "".join(f"{i},{i % 7},{'no' if i % 3 else 'yes'}\n" for i in range(60)))
    flags = ["--no-standardize", "--epoch-count", "2", "--test-fraction", "0", "--json"]
    done = run("train", rows, *flags, server=server)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["job"]["spec"]["model"]["standardize_inputs"] is False


def test_rows_are_not_stored_for_a_run_with_settings_that_are_none(server, tmp_path):
    (tmp_path / "unwanted.csv").write_text("a,y\n1,yes\n2,no\n3,yes\n4,no\n")
    done = run("train", tmp_path / "unwanted.csv", "--optimizer", "adma", server=server)
    assert done.stderr.startswith("mlpd: --optimizer must be one of sgd,")
    assert "did you mean adam?" in done.stderr
    assert run("datasets", "show", "unwanted", server=server).returncode == 1
