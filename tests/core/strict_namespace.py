"""NumPy cut down to what CuPy also takes, and to writing into what is already there."""

import numpy as np
from mlpd.core.devices.arrays import Cpu

_CREATION = {"arange", "asarray", "empty", "empty_like", "zeros", "zeros_like"}
_TYPES = {"float32", "float64", "int64", "uint16", "uint64"}
_UFUNCS = {
    "absolute",
    "add",
    "copyto",
    "divide",
    "equal",
    "exp",
    "expm1",
    "greater",
    "greater_equal",
    "less",
    "log",
    "log1p",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "sign",
    "sqrt",
    "subtract",
    "tanh",
}
_REDUCTIONS = {"argmax", "max", "sum"}
_KEYWORDS = {"casting", "dtype"}


class StrictNamespace:
    """Refuses names, keywords and missing ``out=`` that would fail, copy or allocate on CuPy."""

    def __init__(self):
        self.frozen = False  # once True, creating an array is an error

    def __getattr__(self, name):
        function = getattr(np, name)
        if name in _TYPES:
            return function
        if name in _CREATION:

            def create(*args, **kwargs):
                assert not self.frozen, f"xp.{name} allocates inside a step"
                return function(*args, **kwargs)

            return create
        assert name in _UFUNCS | _REDUCTIONS, f"xp.{name} is not in the portable subset"

        if name == "copyto":
            return np.copyto

        def call(*args, out, **kwargs):
            allowed = {"axis", "dtype", "keepdims"} if name in _REDUCTIONS else _KEYWORDS
            assert not kwargs.keys() - allowed, f"xp.{name} with {kwargs}"
            if name == "matmul":
                assert out.flags.c_contiguous
                assert not any(np.may_share_memory(out, argument) for argument in args)
                assert out.dtype == np.result_type(*args)
            return function(*args, out=out, **kwargs)

        return call


class StrictCpu(Cpu):
    """The CPU, by a `StrictNamespace`."""

    def __init__(self):
        super().__init__()
        self.xp = StrictNamespace()

    def matmul(self, a, b, out):
        self.xp.matmul(a, b, out=out)

    def empty(self, shape, dtype):
        return self.xp.empty(shape, dtype)
