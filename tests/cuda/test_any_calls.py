"""Calls drawn at random, fused on CUDA: they leave what NumPy leaves, call by call.

Numbers are whole and small, and cut off where they grow: then sums and products are exact in any order.
"""

import numpy as np
import pytest
from mlpd.core.plans.recording import RecordingDevice, Scalar

from .fused import LAYOUTS, on_device, tasks_both_ways

pytestmark = pytest.mark.cuda

PLANS, PROGRAMS = 12, 5  # programs of a plan, tasks that may run at the same time
MOST = 8.0
ELEMENTS = ["add", "subtract", "multiply", "maximum", "minimum", "greater", "greater_equal", "less", "equal"]
OF_ONE = ["absolute", "negative", "sign", "copyto"]


class Draft:
    """A program: calls over a pool of arrays of its own, among them overlapping ones, in place now and then."""

    def __init__(self, machine, seed):
        self.machine, self.random = machine, np.random.default_rng(seed)
        self.rows = int(self.some(1, 2, 3, 17, 70))
        self.columns = int(self.some(1, 2, 5, 10, 16, 17, 40, self.rows))
        self.kind = str(self.some("float32", "float64"))
        rows, columns, inner = self.rows, self.columns, int(self.some(1, 4, 9))
        self.matrices = [self.made((rows, columns), str(self.some("C", *LAYOUTS))) for _ in range(4)]
        whole = self.made((rows + 1, columns))
        self.matrices += [whole[:-1], whole[1:]]
        self.outs = [self.made((rows, columns)) for _ in range(2)]
        self.matrices += self.outs
        self.lefts = [self.made((rows, inner)), self.made((inner, rows)).T]
        self.rights = [self.made((inner, columns)), self.made((columns, inner)).T]
        self.across = [self.made((1, columns)), self.made((columns,))]
        self.down = [self.made((rows, 1)), self.made((rows, 3), "c")[:, 1:2]]
        if rows == columns:  # the same numbers, along columns and along rows
            self.across.append(self.down[0].reshape(1, columns))
            self.matrices.append(self.matrices[0].T)
        self.single = [self.made(()), self.made((1, 1))]
        self.places = self.made((rows,), kind="int64")
        self.source, self.order = self.made((90, columns)), on_device(machine, self.random.permutation(90))
        self.outputs = [*self.matrices, *self.across, *self.down, *self.single, self.places, *self.lefts]
        self.kept = [array for array in self.outputs if self.random.random() < 0.5]
        self.lines: list[str] = []
        self.device = RecordingDevice(machine.device)

    def some(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def made(self, shape, layout="C", kind=""):
        return on_device(self.machine, self.random.integers(-8, 9, shape).astype(kind or self.kind), layout)

    def number(self):
        return self.some(0.0, 1.0, 2, -1.0, Scalar("rate"), Scalar("rate") * -1.0)

    def call(self, name, *operands, out, owner=None, **options):
        for operand in operands:
            if hasattr(operand, "strides") and half_overlaps(operand, out):
                return
        self.lines.append(name)
        if owner is None:
            getattr(self.device.xp, name)(*operands, out=out, **options)
        else:
            getattr(owner, name)(*operands, out)
        if name in ("add", "subtract", "multiply", "sum", "square_sum", "matmul", "add_product"):
            self.device.xp.minimum(out, MOST, out=out)
            self.device.xp.maximum(out, -MOST, out=out)

    def elements(self):
        other = self.some(*self.matrices, *self.matrices, *self.across, *self.down, *self.single, self.number())
        self.call(str(self.some(*ELEMENTS)), self.some(*self.matrices), other, out=self.some(*self.matrices))

    def one_operand(self):
        out = self.some(*self.matrices)
        if (name := str(self.some(*OF_ONE))) == "copyto":
            self.lines.append(name)
            self.device.xp.copyto(out, self.some(2.0, self.some(*self.down), self.some(*self.across)))
        else:
            self.call(name, self.some(*self.matrices), out=out)

    def few_numbers(self):
        group = self.some(self.across, self.down, self.down, self.single)
        own = [array.reshape(group[0].shape) for array in group]
        self.call(str(self.some(*ELEMENTS)), self.some(*own), self.some(*own, self.number()), out=self.some(*own))

    def of_rows(self):
        matrix, out = self.some(*self.matrices), self.some(*self.down)
        if (name := str(self.some("sum", "max", "argmax"))) == "argmax":
            self.call(name, matrix, out=self.places, axis=1)
            self.call("equal", self.places, 1, out=out.reshape(-1))
        else:
            self.call(name, matrix, out=out, axis=1, keepdims=True)

    def sums(self):
        self.some(
            lambda: self.call("sum", self.some(*self.matrices), out=self.across[0], axis=0, keepdims=True),
            lambda: self.call("sum", self.outs[0], out=self.single[0]),
            lambda: self.call("square_sum", self.outs[1].reshape(-1), out=self.single[1], owner=self.device),
        )()

    def product(self):
        a, b, out = self.some(*self.lefts), self.some(*self.rights), self.some(*self.outs)
        name, scale = self.some(("matmul", ()), ("matmul", ()), ("add_product", (-1.0,)))
        self.call(name, a, b, *scale, out=out, owner=self.device)

    def gather(self):
        out, order = self.some(*self.matrices), self.some(None, self.order)
        self.call("gather", self.source, order, Scalar("first"), out=out, owner=self.device)

    def step(self):
        kinds = [self.elements, self.elements, self.elements, self.one_operand, self.few_numbers, self.of_rows]
        self.some(*kinds, self.of_rows, self.sums, self.product, self.gather)()

    def calls(self):
        for _ in range(int(self.random.integers(3, 12))):
            self.step()
        return self.device.take()


def half_overlaps(operand, out):
    """Whether a call might look at what it itself has written, which can't be compiled."""
    own, other = operand.data.ptr, out.data.ptr
    same = (own, operand.strides, operand.shape) == (other, out.strides, out.shape)
    return not same and operand.data.mem.ptr == out.data.mem.ptr


@pytest.mark.parametrize("plan", range(PLANS))
def test_any_calls_leave_what_numpy_leaves(machine, seed, plan):
    drafts = [Draft(machine, [seed, plan, number]) for number in range(PROGRAMS)]
    tasks = [draft.calls() for draft in drafts]
    outputs, kept = ([array for draft in drafts for array in getattr(draft, name)] for name in ("outputs", "kept"))
    found, expected = tasks_both_ways(machine, tasks, kept, kept, rate=2.0, first=11)
    assert outputs
    names = [
        f"{number} {draft.kind} {draft.rows} x {draft.columns}: {' '.join(draft.lines)}"
        for number, draft in enumerate(drafts)
        for _ in draft.kept
    ]
    for one, other, name in zip(found, expected, names, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=f"plan {plan}, program {name}")
