"""The command line as a user runs it: real servers, output, exit codes; signals where it is a process."""

import json
import signal
import socket
import subprocess
from contextlib import closing

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..command_line import COMMAND, run, run_process
from ..conftest import ENVIRONMENT

RINGS = [
    "--layer-sizes",
    "2,32,3",
    "--train-dataset",
    "rings",
    "--optimizer",
    "adam",
    "--learning-rate",
    "0.01",
    "--batch-size",
    "50",
]


SMALL = ["--layer-sizes", "784,32,10", "--batch-size", "500"]
# Small batches make long epochs, and so few reports.
ENDLESS = [*RINGS, "--train-dataset", "cli-rings", "--epoch-count", "100000", "--batch-size", "1"]


def follow_until(word, *arguments, environment):
    """Start a command and return it with the first line it prints that holds ``word``."""
    command = [COMMAND[0], "-u", *COMMAND[1:], *map(str, arguments)]
    process = subprocess.Popen(
        command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    line = next((line for line in process.stdout if word in line), None)
    assert line is not None, process.communicate()
    return process, line


def answer(*arguments, **to):
    done = run(*arguments, "--json", **to)
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
    assert answer("datasets", "add", "cli-rings", csv_of_rings, server=server)["dataset"]["row_count"] == 600
    flags = [
        *RINGS,
        "--train-dataset",
        "cli-rings",
        "--epoch-count",
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
        done = run(*arguments, server=server)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout
        printed = run(*arguments, "--json", server=server).stdout.splitlines()
        assert all(isinstance(json.loads(line), dict) for line in printed)
        assert (len(printed) > 1) == (arguments[0] == "watch")


def test_train_without_waiting_says_how_to_follow(server, trained):
    submitted = answer("train", *ENDLESS, server=server)["job"]
    job = submitted["name"].removeprefix("trainingJobs/")
    assert answer("cancel", job, server=server)["jobs"][0]["state"] in ("STATE_CANCELLING", "STATE_CANCELLED")
    done = run("watch", job, server=server)
    assert done.returncode == 1
    assert done.stderr == f"mlpd: trainingJobs/{job} was cancelled\n"
    done = run("train", *ENDLESS, "--no-wait", server=server)
    assert "follow it with: mlpd watch job-" in done.stdout
    run("cancel", done.stdout.split()[0], server=server)


def test_test_data_are_scored_though_nothing_waits(server, trained):
    flags = [*RINGS, "--train-dataset", "cli-rings", "--epoch-count", 1, "--seed", 1, "--no-wait"]
    flags += ["--test-dataset", "cli-rings"]
    job = answer("train", *flags, server=server)["job"]["name"]
    *lines, last = map(json.loads, run("watch", job, "--json", server=server).stdout.splitlines())
    assert last["job"]["state"] == "STATE_SUCCEEDED"
    scores = [line["event"]["metrics_recorded"] for line in lines if "metrics_recorded" in line["event"]]
    assert scores[-1]["split"] == "SPLIT_TEST"
    assert scores[-1]["accuracy"] > 0.3


def test_train_shows_each_epoch_and_the_result(server, trained):
    done = run(
        "train",
        *RINGS,
        "--train-dataset",
        "cli-rings",
        "--epoch-count",
        3,
        "--test-dataset",
        "cli-rings",
        server=server,
    )
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
        (["train", "--preset", "sed"], "preset must be one of seed, default, best, large, got sed; did you mean seed?"),
        (
            ["train", "--layer-sizes", "a,b"],
            "--layer-sizes must be whole numbers with commas, like 784,532,10, got a,b",
        ),
        (["train", "--preset", "default", "--epoch-count", "0"], "--epoch-count must be between 1 and 1000000, got 0"),
        (["train", "--preset", "default", "--train-dataset", "no"], "there is no data set 'no'"),
        (["train", "--config", "/nowhere.toml"], "/nowhere.toml can't be read as TOML"),
        (["watch", "no"], "there is no job 'no'"),
        (["cancel", "NO"], "with an id that matches"),
        (["evaluate", "no", "mnist-test"], "there is no model 'models/no'"),
        (["predict", "cli", "/nowhere.csv"], "/nowhere.csv can't be read: there is no such file"),
        (["predict", "no", "/nowhere.csv", "--output", "a.png"], "output must end in .npz or .csv, got a.png"),
        (["datasets", "add", "a", "/nowhere.npz"], "/nowhere.npz can't be read: there is no such file"),
        (["datasets", "show", "no"], "there is no data set 'no'"),
    ],
)
def test_bad_input_gets_one_sentence(server, trained, arguments, sentence):
    done = run(*arguments, server=server)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    done = run(*arguments, "--json", server=server)
    assert done.returncode == 1
    assert sentence in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("test_dataset", "sentence"),
    [
        ("no", "there is no data set 'no'"),
        ("mnist-test", "--test-dataset must have rows of 2 values, as the network takes, got 784"),
    ],
)
def test_a_test_dataset_that_can_t_be_used_is_refused_before_the_run(server, trained, test_dataset, sentence):
    before = answer("jobs", server=server)
    flags = [*RINGS, "--train-dataset", "cli-rings", "--epoch-count", 1, "--test-dataset", test_dataset]
    for wait in ("--wait", "--no-wait"):
        done = run("train", *flags, wait, server=server)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
    assert answer("jobs", server=server) == before


def test_the_version_is_told():
    assert run_process("--version").stdout.startswith("mlpd 0.")


def test_wrong_usage_exits_with_2():
    assert run("no-such-command").returncode == 2
    assert run("train", "--no-such-flag").returncode == 2


def test_unknown_settings_in_a_file_are_named(server, tmp_path):
    (tmp_path / "a.toml").write_text("epochs = 3\n")
    done = run("train", "--config", tmp_path / "a.toml", server=server)
    assert done.returncode == 1
    assert "got epochs" in done.stderr


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ('preset = ["default"]', "preset must be text, got ['default']"),
        ("job_id = 5", "job_id must be text, got 5"),
        ("test_dataset = 5", "test_dataset must be text, got 5"),
        ('layer_sizes = "784"', "layer_sizes must be a list of whole numbers, got '784'"),
        ("learning_rate = []", "learning_rate must be a number, got []"),
        ("seed = ", "can't be read as TOML"),
    ],
)
def test_settings_of_the_wrong_kind_in_a_file_get_one_sentence(tmp_path, setting, sentence):
    (tmp_path / "a.toml").write_text(setting + "\n")
    done = run("train", "--config", tmp_path / "a.toml")
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_data_directory_that_is_a_file_gets_one_sentence(nobody, tmp_path):
    (tmp_path / "file").touch()
    flags = ["--preset", "default", "--embedded", "--data-dir", tmp_path / "file"]
    done = run("train", *flags, environment={"MLPD_SERVER": nobody})
    assert done.returncode == 1
    assert done.stderr == f"mlpd: the data directory {tmp_path / 'file'} can't be used: File exists\n"


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(server, trained):
    process, line = follow_until("queued", "train", *ENDLESS, environment={"MLPD_SERVER": server.address})
    job = line.split()[0].removeprefix("trainingJobs/")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == f"the job goes on; follow it with: mlpd watch {job} --server {server.address}"
    assert answer("cancel", job, server=server)["jobs"][0]["state"] in ("STATE_CANCELLING", "STATE_CANCELLED")


def test_ctrl_c_on_an_embedded_server_does_not_promise_that_the_job_goes_on(nobody):
    flags = ["train", "--preset", "default", *SMALL, "--epoch-count", 1000, "--embedded"]
    process, _ = follow_until("epoch ", *flags, environment={"MLPD_SERVER": nobody})
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "the job ends with its embedded server; with --data-dir it could go on later"


def test_a_proxy_in_the_environment_does_not_stand_before_loopback(server):
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:  # accepts and never answers
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environment = {"http_proxy": address, "https_proxy": address, "no_proxy": "", "no_grpc_proxy": ""}
        done = run("info", server=server, environment=environment)
        assert done.returncode == 0, done.stderr


def test_without_a_server_every_command_says_so(nobody):
    commands = (["jobs"], ["info"], ["train", "--preset", "default"], ["watch", "a"], ["watch", "a", "--json"])
    for arguments in commands:
        done = run(*arguments, environment={"MLPD_SERVER": nobody, "MLPD_TIMEOUT_SECONDS": "0.3"})
        assert done.returncode == 1
        assert f"no mlpd server answers at {nobody}; start one with: mlpd serve" in done.stderr + done.stdout


def test_train_embedded_starts_a_server_for_its_lifetime(nobody, start_server, tmp_path):
    flags = [
        "train",
        "--preset",
        "default",
        *SMALL,
        "--epoch-count",
        1,
        "--embedded",
        "--data-dir",
        tmp_path / "embedded",
    ]
    result = answer(*flags, environment={"MLPD_SERVER": nobody})
    assert result["test_accuracy"] > 0.8
    again = start_server(data_directory=tmp_path / "embedded")
    assert answer("models", server=again)["models"][0]["parameters_sha256"] == result["parameters_sha256"]


def test_serve_passes_its_options_to_the_server(tmp_path):
    for limit in ((), ("--limit-seconds", "0.3")):  # which is not the server's
        done = run_process(*limit, "serve", "--data-dir", "/proc/nothing")
        assert done.returncode == 1
        assert done.stderr.startswith("mlpd: the data directory /proc/nothing can't be used")


def test_a_limit_is_of_the_command_and_not_of_each_of_its_names(nobody):
    """Each name would be tried for as long as a call may take."""
    flags = "--limit-seconds", "0.5", "--timeout-seconds", "60"
    done = run(*flags, "cancel", "one", "other", environment={"MLPD_SERVER": nobody})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "mlpd: the command did not end within 0.5 seconds; a server's jobs go on"


def test_a_command_has_a_limit_if_it_is_given_one(server, trained):
    job = answer("train", *ENDLESS, server=server)["job"]
    name = job["name"].removeprefix("trainingJobs/")
    for more in ([], ["--json"]):
        done = run("--limit-seconds", "0.5", "watch", name, *more, server=server)
        assert done.returncode == 1
        sentence = "the command did not end within 0.5 seconds; a server's jobs go on"
        if more:
            assert json.loads(done.stdout.splitlines()[-1])["error"]["message"] == sentence
        else:
            assert done.stderr.splitlines()[-1] == f"mlpd: {sentence}"
    assert answer("cancel", name, server=server)["jobs"][0]["state"] in ("STATE_CANCELLING", "STATE_CANCELLED")
