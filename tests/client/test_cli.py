"""The command line as a user runs it: processes, real servers, exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..conftest import ENVIRONMENT

RINGS = [
    "--layer-sizes",
    "2,32,3",
    "--dataset",
    "rings",
    "--optimizer",
    "adam",
    "--learning-rate",
    "0.01",
    "--batch-size",
    "50",
]


def mlpd(*arguments, server=None, timeout=120):
    command = [sys.executable, "-c", "from mlpd.client.cli import main; main()", *map(str, arguments)]
    environment = ENVIRONMENT | ({"MLPD_SERVER": server.address} if server else {}) | {"COLUMNS": "160"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert "Traceback" not in done.stderr
    return done


def answer(*arguments, server=None):
    done = mlpd(*arguments, "--json", server=server)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def csv_of_rings(tmp_path_factory, rings):
    path = tmp_path_factory.mktemp("files") / "rings.csv"
    np.savetxt(path, np.column_stack(rings), delimiter=",", header="x,y,ring", comments="")
    return path


@pytest.fixture(scope="module")
def trained(server, csv_of_rings):
    """A model that the command line alone has made."""
    assert answer("datasets", "add", "cli-rings", csv_of_rings, server=server)["dataset"]["row_count"] == "600"
    flags = [
        *RINGS,
        "--dataset",
        "cli-rings",
        "--epochs",
        30,
        "--seed",
        1,
        "--model-id",
        "cli",
        "--test-dataset",
        "cli-rings",
        "--wait",
    ]
    return answer("train", *flags, server=server)


def test_train_waits_and_tells_everything_in_one_object(trained):
    assert trained["model_version"] == "models/cli/versions/1"
    assert trained["test_accuracy"] > 0.95
    assert trained["seconds"] > 0
    assert len(trained["parameters_sha256"]) == 64
    assert trained["job"]["state"] == "STATE_SUCCEEDED"


def test_digits_from_a_csv_by_the_command_line_alone(server, tmp_path):
    x, test_x, y, test_y = train_test_split(*load_digits(return_X_y=True), random_state=0)
    for name, table in {"train": [x, y], "test": [test_x, test_y], "rows": [test_x[:5]]}.items():
        np.savetxt(tmp_path / f"{name}.csv", np.column_stack(table), fmt="%d", delimiter=",")
    for name in ("train", "test"):
        answer("datasets", "add", f"cli-digits-{name}", tmp_path / f"{name}.csv", server=server)
    (tmp_path / "digits.toml").write_text(
        """
        train_dataset = "cli-digits-train"
        test_dataset = "cli-digits-test"
        model_id = "cli-digits"
        layer_sizes = [64, 64, 10]
        batch_size = 32
        epoch_count = 30
        optimizer = "adam"
        learning_rate = 0.003
        input_scale = 0.0625
        seed = 0
        """
    )
    result = answer("train", "--config", tmp_path / "digits.toml", "--wait", server=server)
    assert result["test_accuracy"] >= 0.96
    assert answer("evaluate", "cli-digits", "cli-digits-test", server=server)["accuracy"] == result["test_accuracy"]
    prediction = answer("predict", "cli-digits", tmp_path / "rows.csv", "--output", tmp_path / "out.csv", server=server)
    assert prediction["classes"] == test_y[:5].tolist()
    assert np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1)[:, 0].tolist() == prediction["classes"]


def test_every_listing_works_in_both_forms(server, trained):
    job = trained["job"]["name"].removeprefix("trainingJobs/")
    for arguments, word in (
        (["info"], "numpy"),
        (["jobs"], job),
        (["models"], "models/cli/versions/1"),
        (["models", "cli"], "2-32-3"),
        (["datasets", "list"], "mnist-train"),
        (["datasets", "show", "cli-rings"], "200, 200, 200"),
        (["evaluate", "cli", "cli-rings"], "true \\ predicted"),
        (["watch", job], "epoch 30/30"),
    ):
        done = mlpd(*arguments, server=server)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout
        assert isinstance(answer(*arguments, server=server), dict)


def test_train_without_waiting_says_how_to_follow(server, trained):
    flags = [*RINGS, "--dataset", "cli-rings", "--epochs", 100_000]
    submitted = answer("train", *flags, server=server)["job"]
    job = submitted["name"].removeprefix("trainingJobs/")
    assert answer("cancel", job, server=server)["job"]["state"] in ("STATE_CANCELLING", "STATE_CANCELLED")
    done = mlpd("watch", job, server=server)
    assert done.returncode == 1
    assert done.stderr == f"mlpd: trainingJobs/{job} was cancelled\n"
    done = mlpd("train", *flags, "--no-wait", server=server)
    assert "follow it with: mlpd watch job-" in done.stdout
    mlpd("cancel", done.stdout.split()[0], server=server)


def test_train_shows_each_epoch_and_the_result(server, trained):
    done = mlpd("train", *RINGS, "--dataset", "cli-rings", "--epochs", 3, "--test-dataset", "cli-rings", server=server)
    assert done.returncode == 0, done.stderr
    for text in (
        "epoch 1/3",
        "epoch 3/3",
        "rows/s",
        "accuracy",
        "published models/",
        "of 600 rows of cli-rings are right",
        "true \\ predicted",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--preset", "sed"], "preset must be one of seed, default, got sed; did you mean seed?"),
        (["train", "--layer-sizes", "a,b"], "layer_sizes must be whole numbers with commas, like 784,532,10, got a,b"),
        (["train", "--preset", "default", "--epochs", "0"], "spec.epoch_count must be between 1 and 1000000, got 0"),
        (["train", "--preset", "default", "--dataset", "no"], "there is no data set 'no'"),
        (["train", "--config", "/nowhere.toml"], "/nowhere.toml can't be read as TOML"),
        (["watch", "no"], "there is no job 'no'"),
        (["cancel", "NO"], "with an id that matches"),
        (["evaluate", "no", "mnist-test"], "there is no model 'models/no'"),
        (["predict", "no", "/nowhere.csv"], "/nowhere.csv can't be read as CSV"),
        (["predict", "no", "/nowhere.csv", "--output", "a.png"], "output must end in .npz or .csv, got a.png"),
        (["datasets", "add", "a", "/nowhere.npz"], "/nowhere.npz can't be read as NumPy arrays"),
        (["datasets", "show", "no"], "there is no data set 'no'"),
    ],
)
def test_bad_input_gets_one_sentence(server, arguments, sentence):
    done = mlpd(*arguments, server=server)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    done = mlpd(*arguments, "--json", server=server)
    assert done.returncode == 1
    assert sentence in json.loads(done.stdout)["error"]["message"]


def test_the_version_is_told():
    assert mlpd("--version").stdout.startswith("mlpd 0.")


def test_wrong_usage_exits_with_2():
    assert mlpd("no-such-command").returncode == 2
    assert mlpd("train", "--no-such-flag").returncode == 2


def test_unknown_settings_in_a_file_are_named(server, tmp_path):
    (tmp_path / "a.toml").write_text("epochs = 3\n")
    done = mlpd("train", "--config", tmp_path / "a.toml", server=server)
    assert done.returncode == 1
    assert "got epochs" in done.stderr


def test_without_a_server_every_command_says_so(start_server):
    server = start_server()
    server.kill()
    for arguments in (["jobs"], ["info"], ["train", "--preset", "default"]):
        done = mlpd(*arguments, server=server)
        assert done.returncode == 1
        assert f"no mlpd server answers at {server.address}; start one with: mlpd serve" in done.stderr


def test_train_embedded_starts_a_server_for_its_lifetime(start_server, tmp_path):
    server = start_server()
    server.kill()
    flags = [
        "train",
        "--preset",
        "default",
        "--epochs",
        1,
        "--batch-size",
        1000,
        "--embedded",
        "--data-dir",
        tmp_path / "embedded",
    ]
    result = answer(*flags, server=server)
    assert result["test_accuracy"] > 0.8
    again = start_server(data_directory=tmp_path / "embedded")
    assert answer("models", server=again)["models"][0]["parameters_sha256"] == result["parameters_sha256"]


def test_serve_passes_its_options_to_the_server(tmp_path):
    done = mlpd("serve", "--help")
    assert done.returncode == 0
    assert "--checkpoint-interval-seconds" in done.stdout
    done = mlpd("serve", "--data-dir", "/proc/nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("mlpd: the data directory /proc/nothing can't be used")
