"""What we are compared with on a GPU does the work that ours does: on the CPU, weights agree after an epoch."""

import importlib

import numpy as np
import pytest

from ..conftest import ROOT


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adam", 0.001)])
@pytest.mark.parametrize("batch_size", [32, 100])
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_a_peer_ends_an_epoch_with_the_weights_of_ours(monkeypatch, peer, batch_size, optimizer, rate):
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    systems, peers = importlib.import_module("gpu_systems"), importlib.import_module("gpu_peers")
    case = importlib.import_module("cases").Case("", (784, 12, 10), 100, batch_size, optimizer, rate)
    start, make = (
        systems.start_of(case),
        {"torch": (peers.torch_trainer, "eager"), "jax": (peers.jax_trainer, "highest")},
    )
    build, way = make[peer]
    found = []
    for trainer in (systems.mlpd_trainer(case, "plain"), build(case, start, way)):
        trainer.start()
        trainer.wait()
        found.append(np.concatenate([part.ravel() for layer in trainer.layers() for part in layer]))
    first = np.concatenate([part.ravel() for layer in start.layers for part in layer])
    assert np.linalg.norm(found[0] - found[1]) < 1e-5 * np.linalg.norm(found[0] - first)
