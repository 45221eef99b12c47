"""Single bits flipped in stored files: every answer is an error that says so, or what it was before."""

import os
import signal
from collections import Counter
from typing import Any

import numpy as np
import pytest
from mlpd.client import Client, DataLoss, JobFailed, training_spec

from ..conftest import Server
from ..system.processes import named_checkpoints, worker_of

SEED = 19
SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 16, 3],
    "train_dataset": "rings",
    "validation_dataset": "other-rings",
    "batch_size": 50,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "seed": 4,
    "metrics_interval_steps": 500,
}
# Of a job that is disturbed: some seconds, with a checkpoint every few tenths.
EPOCHS = 2000


def flip(path, random):
    """Flip one bit of a file, and return the bytes that it had."""
    content = path.read_bytes()
    place, bit = int(random.integers(len(content))), int(random.integers(8))
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([content[place] ^ (1 << bit)]))
    return content


class Flips:
    """A server with two data sets and two equal models, of which one has never been asked for."""

    def __init__(self, server: Server, client: Client, rings, random):
        self.server, self.client, self.random = server, client, random
        self.inputs, self.labels = rings
        self.seen: Counter[str] = Counter()
        self.paths = {}
        for name, inputs in (("rings", self.inputs), ("other-rings", self.inputs[::-1].copy())):
            labels = self.labels if name == "rings" else self.labels[::-1].copy()
            sha256 = client.upload(name, inputs, labels).sha256
            self.paths[name] = server.data_directory / "datasets" / f"{sha256}.safetensors"
        self.asked, self.digest = self.published(epoch_count=3)
        before = set((server.data_directory / "models").iterdir())
        self.unasked, digest = self.published(epoch_count=3)
        assert digest == self.digest
        (self.model_path,) = set((server.data_directory / "models").iterdir()) - before
        self.warm, self.warm_digest = self.published(epoch_count=1, warm_start=self.asked, warm_start_scope="weights")
        self.evaluation, self.prediction = self.evaluated(self.asked), self.predicted(self.asked)

    def published(self, **settings):
        job = self.client.wait(self.client.train(training_spec(**SETTINGS | settings)))
        return job.model_version, self.client.model(job.model_version).parameters_sha256

    def evaluated(self, model, name="rings"):
        found = self.client.evaluate(model, name)
        return found.correct_count, found.loss, np.asarray(found.confusion).tolist()

    def predicted(self, model):
        found = self.client.predict(model, self.inputs)
        return found.logits.tobytes(), found.probabilities.tobytes(), found.classes.tobytes()

    def check(self, ask, undisturbed, reason):
        """Ask; what comes must be the undisturbed answer or the error."""
        try:
            answer = ask()
        except (DataLoss, JobFailed) as error:
            answer, told = None, error
        if answer is None:
            assert (told.reason, "is damaged" in str(told)) == (reason, True)
        else:
            assert answer == undisturbed
        self.seen["refused" if answer is None else "answered as before"] += 1

    def data_set(self):
        name = str(self.random.choice(["rings", "other-rings"]))
        undisturbed = self.evaluated(self.asked, name)
        content = flip(self.paths[name], self.random)
        self.check(lambda: self.evaluated(self.asked, name), undisturbed, "DATASET_DAMAGED")
        self.client.upload("rings", self.inputs, self.labels)
        self.client.upload("other-rings", self.inputs[::-1].copy(), self.labels[::-1].copy())
        assert self.paths[name].read_bytes() == content

    def data_set_of_a_job(self):
        path = self.paths[str(self.random.choice(["rings", "other-rings"]))]
        content = flip(path, self.random)
        self.check(lambda: self.published(epoch_count=3)[1], self.digest, "DATASET_DAMAGED")
        path.write_bytes(content)

    def model(self):
        content = flip(self.model_path, self.random)
        self.check(lambda: self.predicted(self.unasked), self.prediction, "MODEL_DAMAGED")
        self.check(lambda: self.evaluated(self.unasked), self.evaluation, "MODEL_DAMAGED")
        self.model_path.write_bytes(content)

    def model_to_go_on_from(self):
        content = flip(self.model_path, self.random)
        warm = {"epoch_count": 1, "warm_start": self.unasked, "warm_start_scope": "weights"}
        self.check(lambda: self.published(**warm)[1], self.warm_digest, "MODEL_DAMAGED")
        self.model_path.write_bytes(content)

    def checkpoints(self, count):
        """Flip a bit of the newest checkpoint, or of both, each time before a job resumes, ``count`` times in all."""
        _, undisturbed = self.published(epoch_count=EPOCHS)
        done = 0
        while done < count:
            job = self.client.train(training_spec(**SETTINGS | {"epoch_count": EPOCHS}))
            done += self.disturb(job, count - done)
            assert self.client.model(self.client.wait(job).model_version).parameters_sha256 == undisturbed
        self.seen["gone on from a sound state"] += count

    def disturb(self, job, limit):
        """Damage checkpoints and kill the worker, up to ``limit`` times before the job ends; return how often."""
        warnings, expected, deaths = [], 0, 0
        folder = self.server.data_directory / job.name.replace("trainingJobs", "jobs")
        for event in self.client.progress(job):
            if event.HasField("message_logged"):
                warnings.append(event.message_logged.message)
            elif event.HasField("checkpoint_saved") and deaths < limit:
                try:
                    worker = worker_of(self.server)
                except ValueError:
                    continue  # the job has just ended
                os.kill(worker, signal.SIGSTOP)
                steps = sorted(named_checkpoints(self.server.data_directory, folder.name))
                kept = [folder / f"checkpoint-{step:012d}.safetensors" for step in steps]
                if kept and event.sequence + 1 >= self.client.job(job).last_sequence:
                    for path in kept if deaths % 2 else kept[-1:]:
                        flip(path, self.random)
                        expected += 1
                    deaths += 1
                    os.kill(worker, signal.SIGKILL)
                else:
                    os.kill(worker, signal.SIGCONT)
        print(f"{deaths} deaths, {expected} damaged checkpoints: {len(warnings)} warnings")
        assert sum("SIGKILL" in warning for warning in warnings) == deaths
        return deaths


def flip_files(flips, shares):
    for act, count in shares.items():
        for _ in range(count):
            getattr(flips, act)()
    assert flips.evaluated(flips.unasked) == flips.evaluation
    assert flips.predicted(flips.unasked) == flips.prediction
    print(dict(flips.seen))


def test_a_flipped_bit_never_gives_another_answer(server, rings):
    print(f"seed {SEED}")
    with Client(server.address) as client:
        flips = Flips(server, client, rings, np.random.default_rng(SEED))
        flip_files(flips, {"data_set": 11, "model": 7, "data_set_of_a_job": 1, "model_to_go_on_from": 1})


@pytest.mark.faults
def test_no_bit_of_400_gives_another_answer(start_server, rings):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    server = start_server("--checkpoint-interval-seconds", "0.05")
    with Client(server.address) as client:
        flips = Flips(server, client, rings, np.random.default_rng(seed))
        flip_files(flips, {"data_set": 180, "model": 120, "data_set_of_a_job": 40, "model_to_go_on_from": 20})
        flips.checkpoints(40)
    print(dict(flips.seen))
