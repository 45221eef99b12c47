"""What a run warns of reaches whoever follows it on the command line."""

import json

from mlpd.client import Client

from ..command_line import run

WILD = ["--layer-sizes", "2,32,3", "--train-dataset", "rings", "--optimizer", "sgd", "--activation", "tanh"]
WILD += ["--learning-rate", "1e8", "--batch-size", "50", "--epoch-count", "3", "--seed", "1"]
WORDS = "the model is no better than one that ignores its inputs"


def test_a_useless_model_is_told_to_whoever_follows_its_training(server, rings):
    with Client(server.address) as client:
        client.upload("rings", *rings)
    shown = run("train", *WILD, "--wait", server=server)
    assert shown.returncode == 0, shown.stderr
    assert f"warning: {WORDS}" in shown.stdout
    (warning,) = json.loads(run("train", *WILD, "--wait", "--json", server=server).stdout)["warnings"]
    assert warning.startswith(WORDS)
