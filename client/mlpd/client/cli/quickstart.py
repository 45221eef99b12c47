"""``mlpd quickstart``: the whole path in one command, on a server of its own."""

import time
from importlib.resources import files

import numpy as np
import typer
from mlpd.client.cli import follow
from mlpd.client.cli.output import Json, console, evaluation_fields, print_json, show_evaluation
from mlpd.client.client import Client
from mlpd.client.embedded import embedded_server
from mlpd.client.recipes import training_spec
from mlpd.client.results import Prediction
from numpy.typing import NDArray
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

_SHADES = " ░▒▓█"
_NEXT = """
Next:
  mlpd serve                                     start a server that stays
  mlpd train --preset default                    train this network on it
  mlpd train --preset seed                       the classic: full-batch gradient descent, 250 epochs
  mlpd datasets add NAME FILE.csv                your own rows, class numbers in the last column
  mlpd --help                                    everything else"""


def quickstart(as_json: Json = False) -> None:
    """Train 784-532-10 on MNIST, evaluate it, and predict a few digits."""
    if not as_json:
        console.print("[bold]mlpd[/bold]: starting a server in a temporary directory")
    with embedded_server() as address, Client(address) as client:
        spec = training_spec("default")
        if not as_json:
            sizes = "-".join(map(str, spec.model.layer_sizes))
            console.print(f"training {sizes} on 60,000 handwritten digits, {spec.epoch_count} epochs, AdamW")
        started = time.monotonic()
        job = client.train(spec, model_id="digits")
        events = client.progress(job)
        summary = follow.collect(events) if as_json else follow.show(events)
        job = client.wait(job)
        seconds = time.monotonic() - started
        evaluation = client.evaluate(job.model_version, "mnist-test")
        with np.load(str(files("mlpd.client") / "digits.npz")) as sample:
            images = sample["inputs"]
        prediction = client.predict(job.model_version, images)
    if as_json:
        print_json(
            {
                "seconds": round(seconds, 3),
                "train_loss": summary.train_losses[-1],
                "test_accuracy": evaluation.accuracy,
                "parameters_sha256": evaluation.parameters_sha256,
                "test": evaluation_fields(evaluation),
                "predicted": prediction.classes.tolist(),
            }
        )
        return
    console.print(f"trained in {seconds:.1f} s, published {job.model_version}\n")
    show_evaluation(evaluation, "mnist-test")
    console.print("\nTen images it has never seen, and what it takes them for:")
    console.print(Columns(_drawings(images, prediction)))
    console.print(_NEXT, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(quickstart)


def _drawings(images: NDArray[np.uint8], prediction: Prediction) -> list[Panel]:
    panels = []
    for image, label, shares in zip(images, prediction.classes, prediction.probabilities, strict=True):
        # Two rows of pixels make one line of text, whose cells are twice as high as wide.
        shades = image.reshape(14, 2, 28).mean(axis=1) * (len(_SHADES) - 1) / 255
        lines = ["".join(_SHADES[round(shade)] for shade in row) for row in shades.tolist()]
        panels.append(Panel(Text("\n".join(lines)), title=f"{label} ({shares[label]:.1%})", expand=False))
    return panels
