"""Durations on the wire and seconds."""

from google.protobuf.duration_pb2 import Duration


def duration(seconds: float) -> Duration:
    """Return a duration message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds_of(message: Duration) -> float:
    """Return a duration in seconds."""
    return message.seconds + message.nanos / 1e9
