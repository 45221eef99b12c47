"""Explains a step of a resolved spec and times it in this process: ``python -m mlpd.server.jobs.explaining``.

Reads a JSON object with ``spec`` (a serialised TrainingSpec in base64), ``row_count``, ``dtype`` and ``thread_count``
from stdin, and prints one with the explanation, or with an ``error``.
"""

import base64
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlpd.core.planning.explanation import explain
from mlpd.core.plans.runner import RunnerUnavailable
from mlpd.server.executors.kernels import kernels_directory
from mlpd.server.jobs.defaults import resolved_spec
from mlpd.v1.trainer_service_pb2 import TrainingSpec


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    spec = resolved_spec(TrainingSpec.FromString(base64.b64decode(request["spec"])))
    if spec.device != "cpu":
        return {"error": f"a step is explained where it runs on the CPU, got device {spec.device}"}
    with tempfile.TemporaryDirectory() as scratch:
        cache = kernels_directory(Path(scratch))
        try:
            found = explain(spec, request["row_count"], request["dtype"], request["thread_count"], cache)
        except RunnerUnavailable as error:
            return {"error": str(error)}
    return asdict(found) | {name: getattr(spec, name) for name in ("runner", "split", "block_count", "rows_per_step")}


def main() -> None:
    """Answer the request on standard input."""
    print(json.dumps(_answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
