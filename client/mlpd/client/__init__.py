"""The thin client of mlpd: submit training jobs, follow them, evaluate and predict.

>>> from mlpd.client import Client, training_spec
>>> with Client("127.0.0.1:6573") as client:
...     job = client.train(training_spec("default", epoch_count=3))
...     for event in client.progress(job):
...         print(event.metrics_recorded.loss)
"""

from mlpd.client.client import Client
from mlpd.client.errors import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    MlpdError,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    ResourceExhausted,
    ServerError,
    Unavailable,
)
from mlpd.client.recipes import PRESETS, training_spec
from mlpd.client.results import Evaluation, Prediction

__all__ = [
    "PRESETS",
    "AlreadyExists",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "Evaluation",
    "InvalidRequest",
    "JobCancelled",
    "JobFailed",
    "MlpdError",
    "NotFound",
    "OutOfRange",
    "PreconditionFailed",
    "Prediction",
    "ResourceExhausted",
    "ServerError",
    "Unavailable",
    "training_spec",
]
