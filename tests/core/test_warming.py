"""What usual runs call is compiled before they are there."""

import shutil
from dataclasses import replace

import pytest
from mlpd.core.architecture import ModelSpec

from .family import finish, noise, run

pytest.importorskip("llvmlite")

from mlpd.core.execution.arithmetic import verified_compiler
from mlpd.core.warming import usual_runs, warm


def test_networks_of_other_sizes_find_their_kernels_and_an_earlier_release_leaves_none(tmp_path):
    directory, copy, earlier = tmp_path / "kernels", tmp_path / "copy", tmp_path / "kernels" / "0123456789abcdef"
    earlier.mkdir(parents=True)
    warm(directory)
    assert not earlier.exists()
    (own,) = directory.iterdir()
    made = {path: path.stat().st_mtime_ns for path in own.iterdir()}
    assert len(made) > 20
    warm(directory)
    assert {path: path.stat().st_mtime_ns for path in own.iterdir()} == made
    shutil.copytree(directory, copy)
    warmed = next(spec for spec, _ in usual_runs() if not spec.augmentation and spec.split == "units")
    model = replace(ModelSpec.plain((20, 24, 3), input_scale=1 / 255), dropout_rates=(0.3,))
    case = run(optimizer=warmed.optimizer, loss=warmed.loss).but(model=model, batch_size=16)
    case = replace(case.unvalidated(), data=noise(rows=160)).but(runner="compiled", block_count=warmed.block_count)
    finish(case.start(), kernels=copy)
    assert verified_compiler(copy).compiled_count == 0
