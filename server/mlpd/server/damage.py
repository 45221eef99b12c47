"""What is said of a stored file that is no longer what was stored, and what its reader can do about it."""


def dataset_damage(name: str, error: Exception) -> str:
    """Return the sentence about a data set; ``error`` was met when its file was read."""
    return f"the file of {name} is damaged: {_cause(error)}; upload the same content again"


def model_damage(name: str, error: Exception) -> str:
    """Return the sentence about a model version; ``error`` was met when its file was read."""
    return f"the file of {name} is damaged: {_cause(error)}; train it again, its spec gives the same model"


def _cause(error: Exception) -> str:
    """Say what went wrong, without a path of this machine."""
    return f"it can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)
