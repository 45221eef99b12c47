"""Runs on tables are killed as others are: what was learned from the rows is learned again to the bit."""

import grpc
import numpy as np
from mlpd.client import Client
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from ..server.conftest import Stubs
from ..server.test_tables import COLUMNS, columns, passengers, upload
from .test_recovery import facts, follow_until

SPEC = pb.TrainingSpec(
    model=types.ModelSpec(layer_sizes=[0, 128, 128, 0], standardize_inputs=True, dropout_rates=[0.1]),
    loss=pb.Loss(standardize_targets=True),
    train_dataset="datasets/fares",
    validation_fraction=0.2,
    test_dataset="datasets/fares-test",
    batch_size=20,
    epoch_count=150,
    early_stopping=pb.EarlyStopping(patience=1000),
    optimizer=pb.Optimizer(adam=pb.Optimizer.Adam()),
    schedule=pb.Schedule(learning_rate=0.001),
    seed=4,
    device=types.DEVICE_CPU,
    split="units",
    block_count=2,
)


def results(server, kills, start):
    """Reports of a run whose server is killed so often, and what is known of its model."""
    with grpc.insecure_channel(server.address) as channel:
        for name, seed in (("fares", 1), ("fares-test", 2)):
            rows, labels = passengers(400, seed)
            fares = 100 + 20 * np.nan_to_num(rows[:, :1]) + 300 * labels[:, None]
            upload(Stubs(channel), name, rows, columns(*COLUMNS), targets=fares.astype(np.float32))
    with Client(server.address) as client:
        job = client.train(SPEC)
        log = client.progress(job)
        events = []
        for _ in range(kills):
            events += follow_until(log, "checkpoint_saved")
            server.kill()
            server = start("--checkpoint-interval-seconds", "0.05", port=server.port)
        events += list(log)
        model = client.model(client.wait(job).model_version)
    return facts(events), model.parameters_sha256, model.columns


def test_a_run_on_a_table_ends_with_the_same_bits_after_kill_9(start_server):
    server = start_server()
    undisturbed = results(server, 0, start_server)
    server.kill()
    disturbed = results(start_server("--checkpoint-interval-seconds", "0.05"), 2, start_server)
    assert disturbed == undisturbed
    *others, last = undisturbed[0]
    assert last[0] == pb.MetricsRecorded.SPLIT_TEST
    assert pb.MetricsRecorded.SPLIT_TEST not in {report[0] for report in others}
