"""What decides the bits of a run beside its spec: libraries, their kernels, threads, the processor."""

from mlpd.core.devices.arrays import Cpu, Device
from mlpd.core.devices.blas import product_threads
from mlpd.core.execution.runner import ARITHMETIC
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.state_file import StateFileError
from mlpd.core.training.checkpoint import Checkpoint

_JOINT = ", "


def computing_threads(spec: TrainingSpec, thread_count: int) -> int:
    """Return how many of a run's threads compute: all but the one that augments, for they get in each other's way."""
    return max(1, thread_count - (spec.augmentation is not None))


def shares_products(spec: TrainingSpec) -> bool:
    """Return whether a product may be shared by threads: where blocks or a GPU multiply, one does on the host.

    Images are warped on the host for a GPU too.
    """
    return spec.runner == "plain" and (spec.device == "cpu" or spec.augmentation is not None)


def environment_of(device: Device, spec: TrainingSpec) -> str:
    """Return in one line where a run on ``device`` would be computed: runs of equal specs and lines give equal bits."""
    where = Cpu() if device.name == "cpu" else device
    threads = product_threads() if shares_products(spec) else 1
    how = f"compiled {ARITHMETIC}{_JOINT}" if spec.runner == "compiled" else ""
    return f"{where.environment()}{_JOINT}{how}{threads} thread{'' if threads == 1 else 's'}"


def difference(before: str, now: str) -> str:
    """Say what of an environment has become what: "2 threads became 1 thread"."""
    old, new = before.split(_JOINT), now.split(_JOINT)
    gone, come = ([part for part in mine if part not in other] for mine, other in ((old, new), (new, old)))
    return f"{_JOINT.join(gone) or 'nothing'} became {_JOINT.join(come) or 'nothing'}"


def check_environment(checkpoint: Checkpoint, environment: str) -> None:
    """Raise `StateFileError` unless a run that goes on in ``environment`` gives the bits it would have given."""
    before = checkpoint.counters.environment
    if before != environment:
        raise StateFileError(f"the checkpoint must be of this environment, {difference(before, environment)}")
