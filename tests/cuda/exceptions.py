"""The cases that CuPy can not do as the others, each with its reason."""

# Runs whose losses may differ from NumPy's by more than `LOSS_TOLERANCE` over fifty steps, by how much, and why.
LOSS_TOLERANCE = 1e-5
LOOSER_LOSSES: dict[str, tuple[float, str]] = {}

# Runs whose steps may copy or allocate, and why.
BUSIER_STEPS: dict[str, str] = {
    "augmented": "images are warped on the host and copied to the device",
    "augmented full batch": "images are warped on the host and copied to the device",
}
