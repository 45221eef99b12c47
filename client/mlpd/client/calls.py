"""Calls that outlive a server's absence: they are made again, less and less often, until one is answered or time is up.

Every call is safe to repeat: it reads, carries an id that the server knows again, or brings content by its digest.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from mlpd.client.errors import InvalidRequest, error_from
from mlpd.v1.dataset_service_pb2 import UploadDatasetRequest

T = TypeVar("T")

_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 2.0
_SILENT_SECONDS = 1.0  # an absence that lasts longer is told
_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # `Patience` does that
)
DEFAULT_ADDRESS = "127.0.0.1:6573"
# What ends in a port: of an IPv6 address only if it stands in brackets.
_PORT = re.compile(r"(^[^:\[\]]*|\]):\d+$")
_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")
_AWAY = (grpc.StatusCode.UNAVAILABLE,)

_logger = logging.getLogger(__name__)


class Patience:
    """How long to try again, in all, when the server at ``address`` is away or asks for another try later.

    ``has_waited`` says whether an attempt was made again: an earlier one may have had its effect, and lost its answer.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self.has_waited = False
        self.restart()

    def restart(self) -> None:
        """Begin anew: the server has given a sign of life."""
        self._give_up_time = time.monotonic() + self._seconds
        self._failure_time: float | None = None
        self._delay_seconds = _FIRST_DELAY_SECONDS
        self._has_told = False

    @property
    def seconds_left(self) -> float:
        """Time that all further attempts may take."""
        return self._give_up_time - time.monotonic()

    def wait(self, error: grpc.RpcError, away: Collection[grpc.StatusCode] = _AWAY) -> None:
        """Wait until it is time for another attempt; raise our error for ``error`` if none can help, or time is up.

        Codes in ``away`` mean an absence, unless the server itself says what is wrong.
        """
        now = time.monotonic()
        self._failure_time = self._failure_time or now
        tried_seconds = now - self._failure_time
        failure = error_from(error, self._address, tried_seconds)
        ended: grpc.Call = error  # type: ignore[assignment]  # every RpcError of a stub is its call
        is_away = ended.code() in away and not failure.reason
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - nobody's secret
        delay_seconds = max(min(self._delay_seconds * jitter, self.seconds_left / 2), failure.retry_seconds or 0.0)
        is_late = self.seconds_left < _FIRST_DELAY_SECONDS or delay_seconds >= self.seconds_left
        if is_late or (failure.retry_seconds is None and not is_away):
            raise failure from error
        if tried_seconds >= _SILENT_SECONDS and not self._has_told:
            what = f"no mlpd server answers at {self._address} yet" if is_away else failure.message
            _logger.warning("%s; trying for another %.0f s", what, self.seconds_left)
            self._has_told = True
        self.has_waited = True
        time.sleep(delay_seconds)
        self._delay_seconds = min(2 * self._delay_seconds, _LONGEST_DELAY_SECONDS)


def full_address(address: str) -> str:
    """Return ``address`` with the port that servers have by default, where it names none.

    Raises `InvalidRequest` for a URL, and for nothing at all.
    """
    if "://" in address or not address:
        why = "; it speaks gRPC, not HTTP as pages do" if address else ""
        raise InvalidRequest(f"server must be host:port, like {DEFAULT_ADDRESS}, got {address or 'nothing'}{why}")
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")) or _PORT.search(address):
        return address
    return f"{address}:{DEFAULT_ADDRESS.rpartition(':')[2]}"


def open_channel(address: str) -> grpc.Channel:
    """Return a channel to the server at ``address``; nothing is sent yet."""
    # A proxy that the environment names, as many offices do, can't reach this machine's own loopback.
    options = (*_OPTIONS, ("grpc.enable_http_proxy", int(not address.startswith(_LOOPBACK))))
    return grpc.insecure_channel(address, options=options)


def call(method: Callable[..., T], request: Any, patience: Patience) -> T:
    """Return the answer to ``request``."""
    while True:
        try:
            return method(request, timeout=patience.seconds_left)
        except grpc.RpcError as error:
            patience.wait(error)


def upload(
    method: Callable[..., T],
    header: UploadDatasetRequest.Header,
    path: Path,
    chunk_bytes: int,
    patience: Patience,
    on_progress: Callable[[int, int], None] | None = None,
) -> T:
    """Send the file at ``path``, from its beginning at each attempt; getting further than ever renews the patience.

    ``on_progress`` is called with the bytes sent and those of the file.
    """
    sent_bytes = furthest_bytes = 0

    def requests() -> Iterator[UploadDatasetRequest]:
        nonlocal sent_bytes
        yield UploadDatasetRequest(header=header)
        with path.open("rb") as file:
            while chunk := file.read(chunk_bytes):
                yield UploadDatasetRequest(chunk=chunk)
                sent_bytes = max(sent_bytes, file.tell())
                if on_progress:
                    on_progress(file.tell(), header.size_bytes)

    while True:
        try:
            return method(requests())
        except grpc.RpcError as error:
            if sent_bytes > furthest_bytes:
                furthest_bytes = sent_bytes
                patience.restart()
            patience.wait(error)
