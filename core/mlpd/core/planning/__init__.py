"""What can be told of a run before it is made: its plan, its memory, the kernels that it wants."""
