"""The cases in which CuPy can not do as the others do, each with its reason."""

LOSS_TOLERANCE = 1e-5

_SIGNS = "the gradient is a sign, which a rounding error turns where an output meets its target"

# Runs whose losses over fifty steps may differ by more: on training rows, on validation rows, and why.
LOOSER_LOSSES: dict[str, tuple[float, float, str]] = {
    "mean absolute": (1e-3, 1e-3, _SIGNS),
}

_WARPED = "images are warped on the host and copied to the device"

# Runs whose steps may wait, copy or allocate, and why.
BUSIER_STEPS: dict[str, str] = {
    "augmented": _WARPED,
    "augmented full batch": _WARPED,
    "full batch": "every step ends an epoch, whose report waits",
}
