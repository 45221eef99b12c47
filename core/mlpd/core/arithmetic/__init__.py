"""Functions of numbers, written once for whatever code is generated."""
