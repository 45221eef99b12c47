"""A plan of calls: recorded from the formulas once, fused into kernels, and run by NumPy, CuPy or compiled threads."""
