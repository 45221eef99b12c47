"""What decides the bits of a run besides its spec: libraries, their kernels, threads, the processor, micro-batches."""

from mlpd.core.devices.arrays import Cpu, Device
from mlpd.core.devices.blas import product_threads
from mlpd.core.plans.runner import ARITHMETIC
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.state_file import StateFileError
from mlpd.core.training.checkpoint import Checkpoint

_JOINT = ", "


def computing_threads(spec: TrainingSpec, thread_count: int) -> int:
    """Return how many of ``thread_count`` threads compute: one less where another warps images, but at least one."""
    return max(1, thread_count - (spec.augmentation is not None))


def shares_products(spec: TrainingSpec) -> bool:
    """Return whether NumPy shares a product among threads: in plain runs that multiply on the host.

    Those are runs on the CPU, and runs on a GPU for which the host warps images.
    """
    return spec.runner == "plain" and (spec.device == "cpu" or spec.augmentation is not None)


def environment_of(device: Device, spec: TrainingSpec) -> str:
    """Return a line on what computes a run on ``device``: runs with equal specs and equal lines give equal bits.

    How large micro-batches are is said where a step has several, whose gradients are summed.
    """
    where: Device = Cpu()
    if device.name != "cpu":
        where = device.for_compiled_code() if spec.runner == "compiled" else device
    threads = product_threads() if shares_products(spec) else 1
    parts = [where.environment()]
    if spec.runner == "compiled":
        parts.append(f"compiled {ARITHMETIC}")
    if (rows := micro_batch_rows(spec)) < spec.rows_per_step:
        parts.append(f"micro-batches of {rows} rows")
    return _JOINT.join([*parts, f"{threads} thread{'' if threads == 1 else 's'}"])


def difference(before: str, now: str) -> str:
    """Return what differs between two environments: "2 threads became 1 thread"."""
    old, new = before.split(_JOINT), now.split(_JOINT)
    gone, come = ([part for part in mine if part not in other] for mine, other in ((old, new), (new, old)))
    return f"{_JOINT.join(gone) or 'nothing'} became {_JOINT.join(come) or 'nothing'}"


def check_environment(checkpoint: Checkpoint, environment: str) -> None:
    """Raise `StateFileError` unless ``checkpoint`` is of ``environment``: in another, the run could have other bits."""
    before = checkpoint.counters.environment
    if before != environment:
        raise StateFileError(f"the checkpoint must be of this environment, {difference(before, environment)}")
