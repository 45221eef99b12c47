"""A step as a plan: recorded from the formulas once, printed, and run by NumPy, CuPy or compiled threads."""
