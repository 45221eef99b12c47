"""What a step of a run does: its rows, its blocks, its plans."""
