"""A run: its state, its loop, its checkpoints, what it validates."""
