"""How gradients change parameters: optimizers and learning-rate schedules."""
