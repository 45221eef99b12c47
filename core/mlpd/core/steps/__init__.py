"""The steps of a run: their rows, their blocks, their plans."""
