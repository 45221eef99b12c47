"""Launches: calls that wait for nothing of each other share a kernel, each with blocks of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mlpd.core.cuda.calls import MOST_NUMBERS, Call, ProductCode
from mlpd.core.cuda.products import SOURCE, THREADS
from mlpd.core.cuda.writing import PRELUDE, write_call

KERNEL = "launch"


@dataclass(frozen=True)
class Part:
    """A call of a launch, and whose scalars it takes: those of the micro-batch that runs (0), or of the next (1)."""

    call: Call
    row: int


Launch = Sequence[Part]


def launches_of(now: Sequence[Call], following: Sequence[Call]) -> list[Launch]:
    """Return the launches that make the calls ``now``, in order, and load the next rows, ``following``, beside them.

    A call is in the first launch in which it has all it waits for. Loading takes the launches with the fewest blocks.
    """
    levels: list[list[Part]] = []
    placed: list[tuple[Call, int]] = []
    for call in now:
        level = _level(call, placed)
        placed.append((call, level))
        levels += [[] for _ in range(level + 1 - len(levels))]
        levels[level].append(Part(call, 0))
    relative: list[tuple[Call, int]] = []
    for call in following:
        relative.append((call, _level(call, relative)))
    depth = 1 + max((level for _, level in relative), default=-1)
    earliest = max((1 + own - its for call, its in relative for other, own in placed if call.meets(other)), default=0)
    blocks = [sum(part.call.blocks for part in level) for level in levels]
    starts = range(earliest, max(earliest, len(levels) - depth) + 1)
    start = min(starts, key=lambda first: sum(blocks[first : first + depth]))
    for call, level in relative:
        levels += [[] for _ in range(start + level + 1 - len(levels))]
        levels[start + level].append(Part(call, 1))
    return [piece for level in levels for piece in _pieces(level)]


def _level(call: Call, placed: Sequence[tuple[Call, int]]) -> int:
    return max((level + 1 for other, level in placed if call.meets(other)), default=0)


def _pieces(level: Launch) -> list[Launch]:
    """Return a level as launches whose numbers a kernel can take; calls with much to do come first."""
    pieces = [[part] for part in level if part.call.plain]
    room = 0
    for part in sorted(level, key=lambda part: -part.call.operations // max(1, part.call.blocks)):
        if part.call.plain:
            continue
        needed = 1 + len(part.call.numbers)
        assert needed <= MOST_NUMBERS  # as groups are made
        if needed > room:
            pieces.append([])
            room = MOST_NUMBERS
        pieces[-1].append(part)
        room -= needed
    return list(pieces)


def source_of(launch: Launch) -> str:
    """Return the code of a launch: ``launch(numbers, now, next)``, scalars of this micro-batch and of the next."""
    codes = list(dict.fromkeys(part.call.code for part in launch))
    names = {code: f"call{number}" for number, code in enumerate(codes)}
    parts = [PRELUDE]
    if any(isinstance(code.source, ProductCode) for code in codes):
        parts.append(SOURCE)
    parts += [write_call(names[code], code) for code in codes]
    place = len(launch)
    lines = []
    for number, part in enumerate(launch):
        scalars = "next" if part.row else "now"
        call = f"{names[part.call.code]}<{place}>(n, {scalars}, block, shared)"
        lines.append(f"if (block < (long long)n.numbers[{number}]) return {call};")
        lines.append(f"block -= (int)(long long)n.numbers[{number}];")
        place += len(part.call.numbers)
    body = "\n".join(f"    {line}" for line in lines[:-1])
    parts.append(
        f'extern "C" __global__ void __launch_bounds__({THREADS}, 1)\n'
        f"{KERNEL}(const Numbers<{place}> n, const long long* now, const long long* next) {{\n"
        "    extern __shared__ __align__(128) char shared[];\n"
        f"    int block = blockIdx.x;\n{body}\n}}\n"
    )
    return "\n".join(parts)


def struct_of(numbers: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.void]]:
    """Return 64-bit integers as a kernel takes them by value, a ``Numbers<count>``; to CuPy they are bytes."""
    table = np.array([number & 2**64 - 1 for number in numbers] or [0], np.uint64)
    return np.frombuffer(table.tobytes(), np.dtype(f"V{table.nbytes}"))
