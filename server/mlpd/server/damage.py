"""Sentences about a stored file that is no longer what was stored, and what can be done about it."""


def dataset_damage(name: str, error: Exception) -> str:
    """Return the sentence about the data set ``name``, whose file could not be read because of ``error``."""
    return f"the file of {name} is damaged: {_cause(error)}; upload the same content again"


def model_damage(name: str, error: Exception) -> str:
    """Return the sentence about the model version ``name``, whose file could not be read because of ``error``."""
    return f"the file of {name} is damaged: {_cause(error)}; train it again, its spec gives the same model"


def _cause(error: Exception) -> str:
    """Return what went wrong, without a path of this machine."""
    return f"it can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)
