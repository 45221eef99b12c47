"""Durations on the wire and seconds."""

from google.protobuf.duration_pb2 import Duration
from mlpd.server.errors import InvalidRequest


def duration(seconds: float) -> Duration:
    """Return a duration message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds_of(message: Duration) -> float:
    """Return a duration in seconds."""
    return message.seconds + message.nanos / 1e9


def check_duration(field: str, message: Duration) -> None:
    """Raise `InvalidRequest` for ``field`` unless its nanoseconds are less than a second, and of its sign."""
    if abs(message.nanos) >= 10**9 or message.seconds * message.nanos < 0:
        raise InvalidRequest.field(
            f"{field}.nanos",
            f"{field}.nanos must be below 1,000,000,000 and have the sign of seconds, "
            f"got {message.nanos} with {message.seconds} seconds",
        )
