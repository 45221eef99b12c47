"""What decides the bits of a run beside its spec: libraries, their kernels, threads, the processor."""

from mlpd.core.arrays import Cpu, Device
from mlpd.core.blas import product_threads
from mlpd.core.checkpoint import Checkpoint, CheckpointError
from mlpd.core.sharding import spreads_products
from mlpd.core.spec import TrainingSpec

_JOINT = ", "


def environment_of(device: Device, spec: TrainingSpec) -> str:
    """Return in one line where a run on ``device`` would be computed: runs of equal specs and lines give equal bits.

    Raises `DeviceUnavailable` where the library that ``spec`` wants can't be used.
    """
    threads = product_threads() if spreads_products(spec) else 1
    where = Cpu(spec.blas) if device.name == "cpu" else device
    return f"{where.environment()}{_JOINT}{threads} thread{'' if threads == 1 else 's'}"


def difference(before: str, now: str) -> str:
    """Say what of an environment has become what: "2 threads became 1 thread"."""
    old, new = before.split(_JOINT), now.split(_JOINT)
    gone, come = ([part for part in mine if part not in other] for mine, other in ((old, new), (new, old)))
    return f"{_JOINT.join(gone) or 'nothing'} became {_JOINT.join(come) or 'nothing'}"


def check_environment(checkpoint: Checkpoint, environment: str) -> None:
    """Raise `CheckpointError` unless a run that goes on in ``environment`` gives the bits it would have given."""
    before = checkpoint.counters.environment
    if before != environment:
        raise CheckpointError(f"the checkpoint must be of this environment, {difference(before, environment)}")
