"""What is trained, and what is predicted, in the comparison of speed."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """An epoch over ``row_count`` rows; data are MNIST where they fit it, else noise.

    Without an optimizer: predictions for these rows, ``batch_size`` a call.
    """

    name: str
    layer_sizes: tuple[int, ...]
    row_count: int
    batch_size: int
    optimizer: str  # sgd, adam or nothing
    learning_rate: float
    device: str = "cpu"  # or cuda

    @property
    def step_count(self) -> int:
        """Steps of an epoch, or calls."""
        return -(-self.row_count // self.batch_size)

    @property
    def unit(self) -> str:
        """What ``step_count`` counts."""
        return "steps an epoch" if self.optimizer else f"calls of {self.batch_size} rows"

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Case":
        """Return the case that `to_fields` wrote."""
        return cls(**fields | {"layer_sizes": tuple(fields["layer_sizes"])})


_MNIST = (784, 532, 10)
_ON_A_GPU = tuple(
    Case(f"cuda mnist {batch_size} {optimizer}", _MNIST, 60_000, batch_size, optimizer, rate, "cuda")
    for batch_size in (32, 128, 1024, 60_000)
    for optimizer, rate in (("sgd", 0.05), ("adam", 0.001))
)
CASES = {
    case.name: case
    for case in (
        Case("mnist 128 sgd", _MNIST, 60_000, 128, "sgd", 0.05),
        Case("mnist 128 adam", _MNIST, 60_000, 128, "adam", 0.001),
        Case("mnist 32 sgd", _MNIST, 60_000, 32, "sgd", 0.05),
        Case("mnist 1024 sgd", _MNIST, 60_000, 1024, "sgd", 0.05),
        Case("mnist full batch sgd", _MNIST, 60_000, 60_000, "sgd", 0.05),
        Case("1024-4096-4096-10 512 sgd", (1024, 4096, 4096, 10), 4096, 512, "sgd", 0.01),
        Case("tabular 50-256-128-2 128 adam", (50, 256, 128, 2), 100_000, 128, "adam", 0.001),
        Case("predict 1 row", _MNIST, 2_000, 1, "", 0.0),
        Case("predict 32 rows", _MNIST, 32_000, 32, "", 0.0),
        Case("predict 1024 rows", _MNIST, 51_200, 1024, "", 0.0),
        Case("predict 10000 rows", _MNIST, 60_000, 10_000, "", 0.0),
        *_ON_A_GPU,
        Case("cuda 1024-4096-4096-10 512 sgd", (1024, 4096, 4096, 10), 16_384, 512, "sgd", 0.01, "cuda"),
    )
}
