"""How commands reach a server, and for how long they try."""

import signal
from contextvars import ContextVar
from types import FrameType

import grpc
from mlpd.client.calls import full_address, open_channel
from mlpd.client.client import Client
from mlpd.client.errors import Unavailable, error_from
from mlpd.v1.trainer_service_pb2 import GetServerInfoRequest
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub

LOOKING_UP_SECONDS, COMPUTING_SECONDS = 10.0, 60.0
# What ``--timeout-seconds`` says for the command that runs; None leaves it to the command.
chosen_seconds: ContextVar[float | None] = ContextVar("chosen_seconds", default=None)
_PROBE_SECONDS = 5.0


def connect(server: str, timeout_seconds: float = LOOKING_UP_SECONDS) -> Client:
    """Return a client whose calls take at most ``timeout_seconds``, or what the user says."""
    chosen = chosen_seconds.get()
    return Client(server, timeout_seconds=timeout_seconds if chosen is None else chosen)


class LimitReached(BaseException):
    """The command has had its time: nothing that handles errors may take this for one of its own."""


def end_after(seconds: float) -> None:
    """Have the command end with `LimitReached` after ``seconds``, whatever it waits for."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise LimitReached(f"the command did not end within {seconds:g} seconds; a server's jobs go on")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def answers(server: str) -> bool:
    """Return whether a server answers at once."""
    with open_channel(full_address(server)) as channel:
        try:
            TrainerServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=_PROBE_SECONDS)
        except grpc.RpcError as error:
            failure = error_from(error, server)
            if isinstance(failure, Unavailable):
                return False
            raise failure from error
    return True
