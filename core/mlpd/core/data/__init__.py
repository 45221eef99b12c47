"""Data sets: rows in memory and in files, their splits, images warped at random, MNIST."""
