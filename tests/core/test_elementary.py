"""Elementary functions in values: how exact they are, where they end, and that all processors get the same bits."""

import ctypes
import platform

import numpy as np
import pytest

ir = pytest.importorskip("llvmlite.ir", reason="llvmlite is not installed")
binding = pytest.importorskip("llvmlite.binding", reason="llvmlite is not installed")

from mlpd.core.arithmetic import elementary  # noqa: E402 - needs llvmlite
from mlpd.core.codegen.values import LANES, Value, type_of  # noqa: E402

FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh")
KINDS = ("float32", "float64")
MOST_ULPS = 2
STEP = 1021  # of the bit patterns of float32, one is tried


class Compiled:
    """All functions, compiled for a processor."""

    def __init__(self, processor, features):
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        target = binding.Target.from_triple(binding.get_process_triple())
        machine = target.create_target_machine(cpu=processor, features=features, opt=2)
        module = ir.Module()
        module.triple = binding.get_process_triple()
        for name in FUNCTIONS:
            for kind in KINDS:
                for lanes in (1, LANES):
                    _write_loop(module, name, kind, lanes)
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
        passes.getModulePassManager().run(parsed, passes)
        self.engine = binding.create_mcjit_compiler(parsed, machine)
        self.engine.finalize_object()

    def __call__(self, name, x, lanes=LANES):
        """Return what the function makes of each number."""
        padded = np.zeros(-(-len(x) // lanes) * lanes, x.dtype)
        padded[: len(x)] = x
        address = self.engine.get_function_address(f"{name}_{x.dtype}_{lanes}")
        loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
        results = np.empty_like(padded)
        loop(padded.ctypes.data, results.ctypes.data, len(padded))
        return results[: len(x)]


def _write_loop(module, name, kind, lanes):
    pointer, count = type_of(kind).as_pointer(), ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, pointer, count]), f"{name}_{kind}_{lanes}")
    source, target, length = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    start, loop, end = builder.block, function.append_basic_block(), function.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(count)
    vectors, align = type_of(kind, lanes).as_pointer(), np.dtype(kind).itemsize
    x = builder.load(builder.bitcast(builder.gep(source, [index]), vectors), align=align)
    result = getattr(elementary, name)(Value(builder, x, kind, lanes))
    builder.store(result.code, builder.bitcast(builder.gep(target, [index]), vectors), align=align)
    following = builder.add(index, count(lanes))
    index.add_incoming(count(0), start)
    index.add_incoming(following, loop)
    builder.cbranch(builder.icmp_unsigned("<", following, length), loop, end)
    builder.position_at_end(end)
    builder.ret_void()


@pytest.fixture(scope="module")
def compiled():
    """The functions as this machine runs them."""
    return Compiled(binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())


@pytest.fixture(scope="module")
def seed():
    """A number that differs from run to run: all together the runs try every number."""
    drawn = int(np.random.default_rng().integers(2**32))
    print("seed", drawn)
    return drawn


@pytest.fixture(scope="module")
def numbers(seed):
    """Numbers of each kind, from everywhere and from where formulas change or results end."""
    return {
        "float32": np.arange(seed % STEP, 2**32, STEP, dtype=np.uint32).view(np.float32),
        "float64": _float64_numbers(np.random.default_rng(seed), 20_000),
    }


def _float64_numbers(generator, count):
    limits = np.finfo(np.float64)
    patterns = generator.integers(2**64, size=2 * count, dtype=np.uint64).view(np.float64)
    sizes = np.ldexp(generator.uniform(1, 2, 2 * count), generator.integers(-60, 11, 2 * count))
    subnormal = limits.smallest_normal * generator.uniform(-1, 1, count)
    half_multiples = np.log(2) / 2 * generator.integers(-2160, 2060, count)
    ends = [np.log(limits.max), np.log(limits.smallest_normal), np.log(limits.smallest_subnormal), 1, -1, 0.625, -0.625]
    near_ends = np.concatenate([end * (1 + np.ldexp(generator.uniform(-1, 1, 2000), -12)) for end in ends])
    closest = np.concatenate([np.float64(end) * (1 + np.arange(-50, 50) * limits.eps) for end in ends])
    return np.concatenate(
        [
            *(patterns, sizes, -sizes, subnormal, half_multiples, near_ends, closest),
            *(half_multiples * (1 + np.ldexp(generator.uniform(-1, 1, count), -scale)) for scale in (10, 30, 50)),
            *(generator.uniform(-size, size, count) for size in (0.5, 2, 40)),
            *(end + generator.uniform(-0.5, 0.5, count) for end in ends[:4]),
        ]
    )


def _distances(results, expected):
    """Return how far results are from more exact ones, in units in the last place of the result's type."""
    limits, wide = np.finfo(results.dtype), expected.dtype.type
    beyond = np.ldexp(wide(1), limits.maxexp)  # infinity, and what rounds to it
    exact = np.clip(expected, -beyond, beyond)
    _, exponents = np.frexp(exact)
    units = np.ldexp(wide(1), np.maximum(exponents - 1, limits.minexp) - limits.nmant)
    distances = np.abs(np.clip(results.astype(wide), -beyond, beyond) - exact) / units
    distances[np.isnan(results) & np.isnan(expected)] = 0
    return np.where(np.isnan(distances), np.inf, distances)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_within_two_units_in_the_last_place(compiled, numbers, seed, name, kind):
    wide = np.float64 if kind == "float32" else np.longdouble
    if np.finfo(wide).nmant <= np.finfo(kind).nmant:
        pytest.skip("NumPy has no longer type here")
    x = numbers[kind]
    with np.errstate(all="ignore"):
        distances = _distances(compiled(name, x), getattr(np, name)(x.astype(wide)))
    worst = int(np.argmax(distances))
    measured = f"{name} of {kind}: {distances[worst]:.3f} ulp at {x[worst]!r}, {len(x)} numbers, seed {seed}"
    print(measured)
    assert distances[worst] <= MOST_ULPS, measured


SPECIAL = {
    "exp": [(0.0, 1), (-0.0, 1), (np.inf, np.inf), (-np.inf, 0), (1e5, np.inf), (-1e5, 0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (np.inf, np.inf), (-np.inf, -1), (1e5, np.inf), (-1e5, -1)],
    "log": [(0.0, -np.inf), (-0.0, -np.inf), (1, 0.0), (np.inf, np.inf), (-np.inf, np.nan), (-1, np.nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -np.inf), (np.inf, np.inf), (-np.inf, np.nan), (-1.5, np.nan)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (np.inf, 1), (-np.inf, -1), (1e5, 1), (-1e5, -1)],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_special_values_are_exact(compiled, name, kind):
    x, expected = np.array([*SPECIAL[name], (np.nan, np.nan), (-np.nan, np.nan)], kind).T
    results = compiled(name, x)
    np.testing.assert_array_equal(results, expected)
    numeric = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(results[numeric]), np.signbit(expected[numeric]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_numbers_are_not_lost(compiled, kind):
    smallest = np.finfo(kind).smallest_subnormal
    x = np.arange(-40, 41).astype(kind) * smallest
    for name in ("expm1", "log1p", "tanh"):
        np.testing.assert_array_equal(compiled(name, x), x)
    powers = np.ldexp(np.array(1, kind), -np.arange(1, 1 - np.finfo(kind).minexp + np.finfo(kind).nmant))
    np.testing.assert_allclose(compiled("log", powers), np.log(powers), rtol=4 * np.finfo(kind).eps)
    np.testing.assert_allclose(compiled("exp", np.log(powers)), powers, rtol=1e-3, atol=2 * smallest)


@pytest.mark.parametrize("kind", KINDS)
def test_logarithms_of_what_is_just_too_small_are_nan(compiled, kind):
    below_zero = -np.array([np.finfo(kind).smallest_subnormal, np.finfo(kind).smallest_normal], kind)
    assert np.isnan(compiled("log", below_zero)).all()
    assert np.isnan(compiled("log1p", np.nextafter(np.array([-1], kind), np.array([-2], kind)))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_results_are_finite(compiled, kind):
    limit = np.array([np.log(np.finfo(kind).max)], kind)
    around = np.concatenate([limit - 4 * np.spacing(limit), limit + 4 * np.spacing(limit)])
    for name in ("exp", "expm1"):
        assert np.isfinite(compiled(name, around)).tolist() == [True, False]


def _assert_same_bits(results, others):
    """Check that results are the same bit by bit; which NaN one is, LLVM leaves open."""
    bits = f"uint{8 * results.itemsize}"
    differ = (results.view(bits) != others.view(bits)) & ~(np.isnan(results) & np.isnan(others))
    assert not differ.any()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_number_and_many_have_the_same_bits(compiled, numbers, name, kind):
    _assert_same_bits(compiled(name, numbers[kind], lanes=1), compiled(name, numbers[kind]))


@pytest.fixture(scope="module")
def compiled_without_features():
    """The functions as any x86 processor of the last years runs them: short vectors, no fused operations."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("the processor is no x86")
    return Compiled("x86-64-v2", "")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_processor_does_not_matter(compiled, compiled_without_features, numbers, name, kind):
    for lanes in (1, LANES):
        _assert_same_bits(compiled(name, numbers[kind], lanes), compiled_without_features(name, numbers[kind], lanes))
