"""Plans of calls: recorded from the formulas once, then run by NumPy or CuPy, or fused into kernels and compiled."""
