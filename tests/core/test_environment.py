"""What decides the bits of a run beside its spec is said in one line, and a checkpoint from elsewhere is refused."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.plans.runner import ARITHMETIC
from mlpd.core.state_file import StateFileError
from mlpd.core.training.environment import (
    check_environment,
    computing_threads,
    difference,
    environment_of,
    shares_products,
)
from threadpoolctl import threadpool_info, threadpool_limits

from .family import AUGMENTATION, SPEC, run

COMPILED = replace(SPEC, runner="compiled", block_count=2)


def lines(spec, *thread_counts):
    found = []
    for count in thread_counts:
        with threadpool_limits(count):
            found.append(environment_of(Cpu(), spec))
    return found


def test_it_names_numpy_the_features_of_the_processor_and_the_library_that_multiplies():
    environment = environment_of(Cpu(), SPEC)
    assert f"numpy {np.__version__} on " in environment
    for feature in np.show_config(mode="dicts")["SIMD Extensions"]["found"]:
        assert feature in environment
    for library in threadpool_info():
        if "libscipy_openblas" in library["filepath"]:
            assert f"openblas {library['version']} {library['architecture']}" in environment


def test_threads_count_where_a_product_is_shared_by_several():
    one, two = lines(SPEC, 1, 2)
    assert (one.rpartition(", ")[2], difference(one, two)) == ("1 thread", "1 thread became 2 threads")
    compiled, with_more = lines(COMPILED, 1, 2)
    assert compiled == with_more


def test_of_compiled_code_it_names_the_arithmetic_and_nothing_else_is_new():
    (plain,), (compiled,) = lines(SPEC, 1), lines(COMPILED, 1)
    assert difference(plain, compiled) == f"nothing became compiled {ARITHMETIC}"


@pytest.mark.parametrize(("spec", "rows"), [(SPEC, 512), (COMPILED, 1024)])
def test_of_steps_in_several_micro_batches_it_names_how_many_rows_these_have(spec, rows):
    """No spec says how steps are cut, which decides rounding: a run that another release began must not go on here."""
    (one,), (several,) = (lines(replace(spec, batch_size=size), 1) for size in (rows, rows + 1))
    assert difference(one, several) == f"nothing became micro-batches of {rows} rows"
    saved = run().start().checkpoint()
    older = replace(saved, counters=replace(saved.counters, environment=one))
    with pytest.raises(StateFileError, match=f"nothing became micro-batches of {rows} rows"):
        check_environment(older, several)


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, True),
        ({"augmentation": AUGMENTATION}, True),
        ({"runner": "compiled", "block_count": 2}, False),
        ({"runner": "compiled"}, False),
        ({"runner": "compiled", "augmentation": AUGMENTATION}, False),
        ({"device": "cuda"}, False),
        ({"device": "cuda", "augmentation": AUGMENTATION}, True),
    ],
)
def test_products_are_shared_where_the_library_of_the_host_makes_them_alone(changes, shares):
    assert shares_products(replace(SPEC, **changes)) == shares


def test_all_threads_compute_but_the_one_that_augments():
    augmented = replace(SPEC, augmentation=AUGMENTATION)
    assert [computing_threads(SPEC, count) for count in (1, 2, 5)] == [1, 2, 5]
    assert [computing_threads(augmented, count) for count in (1, 2, 5)] == [1, 1, 4]


def test_features_that_numpy_is_told_to_leave_alone_are_left_out():
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    if not found:
        pytest.skip("NumPy has no features here that it could leave alone")
    program = "from mlpd.core.devices.arrays import Cpu; print(Cpu().environment())"
    variables = os.environ | {"NPY_DISABLE_CPU_FEATURES": found[-1], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert found[-1] in Cpu().environment()
    assert found[-1] not in done.stdout


def test_a_checkpoint_of_another_environment_is_refused():
    saved = run().start().checkpoint()
    check_environment(saved, environment_of(Cpu(), run().spec))
    with pytest.raises(StateFileError, match="must be of this environment, numpy"):
        check_environment(saved, "numpy 1.0, 2 threads")
