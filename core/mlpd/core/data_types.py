"""The types of numbers that data come in, and what models can be computed in."""

from collections.abc import Mapping
from dataclasses import dataclass

LARGEST_LABEL = 65535


@dataclass(frozen=True)
class DataType:
    """What a type of numbers, which NumPy knows by its key in `DATA_TYPES`, is called elsewhere."""

    safetensors: str
    protocol: str


DATA_TYPES: Mapping[str, DataType] = {
    "float32": DataType("F32", "FP32"),
    "float64": DataType("F64", "FP64"),
    "float16": DataType("F16", "FP16"),
    "uint8": DataType("U8", "UINT8"),
    "int32": DataType("I32", "INT32"),
    "int64": DataType("I64", "INT64"),
}
LABEL_TYPES = ("int64", "int32", "uint8")
TARGET_TYPES = ("float32", "float64", "uint8")
WEIGHT_TYPES = ("float32", "float64")


@dataclass(frozen=True)
class Precision:
    """What can be told apart in a type that models are computed in."""

    range: tuple[float, float]  # sizes of a setting that are neither zero nor infinite, with room to compute
    spacing: float  # from 1 to the next number
    smallest_mean: float  # smaller means are made zero
    smallest_square: tuple[float, float]  # smaller squares are made zero: as a rule, and where epsilon shows them
    smallest_epsilon: float  # far above the roots of these


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision((1e-37, 1e38), 2.0**-23, 1e-30, (1e-35, 2e-37), 1e-16),
    "float64": Precision((1e-307, 1e308), 2.0**-52, 1e-290, (1e-305, 4e-307), 1e-150),
}
