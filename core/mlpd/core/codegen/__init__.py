"""Kernels and the loop that runs them, as machine code, by LLVM."""
