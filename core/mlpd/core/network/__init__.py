"""A network by hand: layers and what they are made of, losses, tasks, the scaling of inputs."""
