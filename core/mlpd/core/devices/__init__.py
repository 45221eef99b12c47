"""Where arrays are: NumPy on the host, CuPy on a CUDA device, and the BLAS library behind NumPy."""
