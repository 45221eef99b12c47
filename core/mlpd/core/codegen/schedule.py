"""The loop over a plan, compiled once: threads claim tasks, round by round, until a chunk of steps is done.

All data are tables of 64-bit integers. A chunk consists of stages, a stage of rounds, a round of tasks, a task of
segments, and a segment of calls: each the address of a kernel and the address of its arguments. A round begins when all
tasks of earlier rounds are done. Which thread takes which task changes no result.
"""

from llvmlite import ir
from mlpd.core.codegen.writing import at, loop, whole

CELL_BYTES = 64  # of a number that threads share: it has a cache line to itself
_SPINS = 2000  # looks at a number before a waiting thread yields its processor

_I64 = ir.IntType(64)
_POINTER = ir.PointerType()

# Indices of a chunk's table: of counts, a stride in bytes, and addresses (YIELD: of a function).
STAGE_COUNT, STAGES, SCALARS, SCALAR_STRIDE, DONE, CLAIMS, THREAD_COUNT, YIELD = range(8)


def _entry(builder: ir.IRBuilder, table: ir.Value, place: ir.Value) -> ir.Value:
    return builder.load(builder.gep(table, [place], source_etype=_I64), typ=_I64)


def _pair(builder: ir.IRBuilder, table: ir.Value, number: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return entry ``number`` of a table of pairs: a pointer to another table, and how many entries that has."""
    first = builder.mul(number, whole(2))
    where, count = (_entry(builder, table, builder.add(first, whole(part))) for part in (0, 1))
    return at(builder, where), count


def write_loop(module: ir.Module, name: str) -> None:
    """Add ``void name(i64* chunk, i64 thread)``, which each thread runs, to ``module``; it returns when all is done."""
    signature = ir.FunctionType(ir.VoidType(), [_POINTER, _I64])
    function = ir.Function(module, signature, name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    chunk, thread = function.args
    fields = [_entry(builder, chunk, whole(place)) for place in range(8)]
    scalars, stride, done, claims = fields[SCALARS], fields[SCALAR_STRIDE], fields[DONE], fields[CLAIMS]
    stages = at(builder, fields[STAGES])
    round_number, target = builder.alloca(_I64), builder.alloca(_I64)
    builder.store(whole(0), round_number)
    builder.store(whole(0), target)
    with loop(builder, whole(0), fields[STAGE_COUNT]) as stage:
        rounds, round_count = _pair(builder, stages, stage)
        row = builder.add(scalars, builder.mul(stage, stride))
        with loop(builder, whole(0), round_count) as this:
            tasks, task_count = _pair(builder, rounds, this)
            number = builder.add(builder.load(round_number, typ=_I64), whole(1))
            builder.store(number, round_number)
            before = builder.load(target, typ=_I64)
            _write_wait(builder, done, before, fields[YIELD])
            home = builder.sdiv(builder.mul(thread, task_count), fields[THREAD_COUNT])
            with loop(builder, whole(0), task_count) as turn:
                place = builder.srem(builder.add(home, turn), task_count)
                cell = at(builder, builder.add(claims, builder.mul(place, whole(CELL_BYTES))))
                known = builder.load_atomic(cell, "acquire", 8, typ=_I64)
                with builder.if_then(builder.icmp_signed("<", known, number)):
                    claimed = builder.extract_value(builder.cmpxchg(cell, known, number, "seq_cst", "seq_cst"), 1)
                    with builder.if_then(claimed):
                        _write_task(builder, *_pair(builder, tasks, place), row, stride)
                        builder.atomic_rmw("add", at(builder, done), whole(1), "seq_cst")
            builder.store(builder.add(before, task_count), target)
    _write_wait(builder, done, builder.load(target, typ=_I64), fields[YIELD])
    builder.ret_void()


def _write_task(builder: ir.IRBuilder, segments: ir.Value, count: ir.Value, row: ir.Value, stride: ir.Value) -> None:
    """Write the calls of a task; each segment takes the stage's row of scalars, or the next."""
    signature = ir.FunctionType(ir.VoidType(), [_POINTER, _POINTER])
    with loop(builder, whole(0), count) as segment:
        first = builder.mul(segment, whole(3))
        where, call_count, ahead = (_entry(builder, segments, builder.add(first, whole(part))) for part in range(3))
        calls = at(builder, where)
        own_row = at(builder, builder.add(row, builder.mul(ahead, stride)))
        with loop(builder, whole(0), call_count) as number:
            place = builder.mul(number, whole(2))
            kernel = builder.inttoptr(_entry(builder, calls, place), signature.as_pointer())
            arguments = at(builder, _entry(builder, calls, builder.add(place, whole(1))))
            builder.call(kernel, [arguments, own_row])


def _write_wait(builder: ir.IRBuilder, done: ir.Value, target: ir.Value, give_up: ir.Value) -> None:
    """Write a wait until ``target`` tasks are done: spin for a while, then call ``give_up`` after each look."""
    function = builder.function
    cell = at(builder, done)
    parts = ("wait", "pause", "turn", "away", "go")
    head, pause, turn, away, after = (function.append_basic_block(part) for part in parts)
    start = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    spins = builder.phi(_I64)
    spins.add_incoming(whole(0), start)
    known = builder.load_atomic(cell, "acquire", 8, typ=_I64)
    builder.cbranch(builder.icmp_signed(">=", known, target), after, pause)
    builder.position_at_end(pause)
    more = builder.add(spins, whole(1))
    builder.cbranch(builder.icmp_signed("<", more, whole(_SPINS)), turn, away)
    builder.position_at_end(turn)
    _write_pause(builder)
    builder.branch(head)
    spins.add_incoming(more, turn)
    builder.position_at_end(away)
    builder.call(builder.inttoptr(give_up, ir.FunctionType(ir.IntType(32), []).as_pointer()), [])
    builder.branch(head)
    spins.add_incoming(more, away)
    builder.position_at_end(after)


def _write_pause(builder: ir.IRBuilder) -> None:
    """Write x86-64's hint to the processor that it waits in a loop; nothing for others."""
    triple = builder.module.triple
    if triple.startswith("x86_64"):
        nothing = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
