"""Plans as CUDA kernels: code, launches, graphs."""
