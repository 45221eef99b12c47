"""Answers to the parts of a request, put together."""

import numpy as np
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.parts import refusals_of
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from .test_transport import serving

ROWS = np.zeros((1000, 4))


def evaluated(losses, message_bytes):
    """Return the evaluation of `ROWS` by a server whose answers have these losses."""
    waiting = iter(losses)

    def evaluate(request, _context):
        return pb.EvaluateResponse(row_count=request.rows.inputs.shape[0], loss=next(waiting))

    with serving(
        GetServerInfo=lambda *_: pb.GetServerInfoResponse(max_message_bytes=message_bytes),
        GetModelVersion=lambda *_: model_pb.GetModelVersionResponse(
            model_version=model_pb.ModelVersion(task="regression", spec=types.ModelSpec(layer_sizes=[4, 1]))
        ),
        Evaluate=evaluate,
    ) as client:
        return client.evaluate("a", (ROWS, ROWS[:, 0]))


def test_the_loss_of_one_answer_stays_as_it_is():
    for loss in (0.1, 0.7, 1e-310, 1.7e308):
        assert evaluated([loss], 2**20).loss == loss


def test_a_mean_of_losses_does_not_overflow():
    found = evaluated([1.7e308] * 5, 16_384)
    assert (found.row_count, found.loss) == (1000, pytest.approx(1.7e308))


@pytest.mark.parametrize(
    ("part", "sentence", "rows", "expected"),
    [
        (slice(0, 10), "x must be 1, got 3 at row 3", "3", "x must be 1, got 3 at row 3"),
        (slice(4, 8), "x must be 1, got 3 at row 3", "3", "x must be 1, got 3 at row 7 among rows 4 to 7"),
        (slice(8, 12), "rows 0, 1 (2 such rows)", "0, 1", "rows 8, 9 (2 such rows) among rows 8 to 9"),
        (slice(4, 8), "x must have 3 columns", "", "x must have 3 columns"),
        (slice(4, 8), "x must be whole at row 3", "third", "x must be whole at row 3"),
    ],
)
def test_a_refusal_names_rows_by_the_callers_numbers(part, sentence, rows, expected):
    with pytest.raises(InvalidRequest) as caught, refusals_of(part, 10):
        raise InvalidRequest(sentence, "SOME_REASON", {"x": sentence}, {"rows": rows})
    assert caught.value.message.removesuffix(", which are sent together") == expected
    assert caught.value.fields == {"x": caught.value.message}
    assert caught.value.reason == "SOME_REASON"
