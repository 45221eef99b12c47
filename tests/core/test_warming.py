"""What usual runs call is compiled before they are there."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.network.architecture import ModelSpec

from .family import finish, model_of, noise, run

pytest.importorskip("llvmlite")

from mlpd.core.execution.verification import verified_compiler
from mlpd.core.models.predictor import CompiledPredictor
from mlpd.core.planning.usual_runs import usual_runs
from mlpd.core.planning.warming import warm


def test_networks_of_other_sizes_find_their_kernels_and_what_is_long_unused_goes(tmp_path):
    directory, copy = tmp_path / "kernels", tmp_path / "copy"
    earlier, other = (directory / name for name in ("0123456789abcdef", "another"))
    for folder, days in ((earlier, 31), (other, 29)):
        folder.mkdir(parents=True)
        (folder / "warmed").touch()
        then = time.time() - days * 24 * 60 * 60
        os.utime(folder / "warmed", (then, then))
    warm(directory)
    assert not earlier.exists()
    (own,) = {*directory.iterdir()} - {other}
    made = {path: path.stat().st_mtime_ns for path in own.glob("f*")}
    assert len(made) > 20
    warm(directory)
    assert {path: path.stat().st_mtime_ns for path in own.glob("f*")} == made
    shutil.copytree(directory, copy)
    warmed = next(spec for spec, _ in usual_runs() if not spec.augmentation and spec.split == "units")
    model = replace(ModelSpec.plain((20, 24, 3), input_scale=1 / 255), dropout_rates=(0.3,))
    case = run(optimizer=warmed.optimizer, loss=warmed.loss).but(model=model, batch_size=16)
    case = replace(case.unvalidated(), data=noise(rows=160)).but(runner="compiled", block_count=warmed.block_count)
    finish(case.start(), kernels=copy)
    predictor = CompiledPredictor(model_of(ModelSpec.plain((900, 260, 3), input_scale=1 / 255)), 512, kernels=copy)
    for count in (1, 20, 512):
        predictor.predict(np.zeros((count, 900), np.uint8))
    assert verified_compiler(copy).compiled_count == 0
