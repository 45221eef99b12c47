"""Whatever a spec holds, Train answers with a status that says what is wrong, or with what it would run."""

import random

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc import StatusCode
from mlpd.v1 import trainer_service_pb2 as pb

from ..conftest import SOAK
from .conftest import rings_spec

INF = float("inf")
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("nan"), INF, -INF, 3.0)
WHOLES = (0, 1, -1, 2, 3, 50, 1000, 2**31 - 1, -(2**31))
LONG_WHOLES = (*WHOLES, 2**32, 2**53 + 1, 2**62, 2**63 - 2, 2**63 - 1, -(2**63))
TEXTS = ("", "relu", "batch", "zeros", "binary", "regression", "poisson", "accuracy", "datasets/rings", "models/no")
RUNNERS = ("compiled", "plain", "rows", "units")
ODD_TEXTS = ("x" * 5000, "\u202e\0")
ANSWERS = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.RESOURCE_EXHAUSTED,
}
KINDS = {
    FieldDescriptor.TYPE_DOUBLE: NUMBERS,
    FieldDescriptor.TYPE_INT32: WHOLES,
    FieldDescriptor.TYPE_INT64: LONG_WHOLES,
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_STRING: (*TEXTS, *RUNNERS, *ODD_TEXTS),
    FieldDescriptor.TYPE_ENUM: (0, 1, 2, 99),
}


def scatter(draw: random.Random, message, share=0.12, depth=0):
    """Set a ``share`` of the fields to values that are seldom right."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() > share:
            continue
        repeated = hasattr(getattr(message, field.name), "extend")
        if field.message_type and depth < 4:
            inner = (
                [getattr(message, field.name).add() for _ in range(2)] if repeated else [getattr(message, field.name)]
            )
            for one in inner:
                one.SetInParent()
                scatter(draw, one, 0.4, depth + 1)
        elif repeated and not field.message_type:
            getattr(message, field.name).extend(draw.choices(KINDS[field.type], k=draw.randint(0, 3)))
        elif not field.message_type:
            setattr(message, field.name, draw.choice(KINDS[field.type]))


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_train_has_an_answer_to_any_spec(stubs, seed):
    draw = random.Random(seed)
    seen = set()
    for _ in range(100):
        spec = rings_spec()
        scatter(draw, spec)
        code, details = answer_to(stubs, spec)
        assert code in ANSWERS, f"{details}\n{spec}"
        assert len(details) < 5000
        seen.add(code)
    assert {StatusCode.OK, StatusCode.INVALID_ARGUMENT} <= seen


def answer_to(stubs, spec):
    try:
        stubs.trainer.Train(pb.TrainRequest(spec=spec, validate_only=True))
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return StatusCode.OK, ""
