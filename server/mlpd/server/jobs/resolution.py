"""From a Train request to the resolved spec: every default filled in, every rule checked, all at once."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from mlpd.core.execution.opening import missing_for
from mlpd.core.planning.memory import estimate_bytes
from mlpd.core.spec.rules import find_violations
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.asynchronous import BoundedThreads
from mlpd.server.errors import DataLoss, PreconditionFailed, ResourceExhausted
from mlpd.server.executors.devices import DeviceReport, Devices
from mlpd.server.jobs.defaults import Sources, full_spec
from mlpd.server.jobs.violations import Violations
from mlpd.server.labels import check_labels, check_note
from mlpd.server.names import check_id, check_request_id, parse_dataset, parse_model
from mlpd.server.records import DatasetRecord, Submission
from mlpd.server.storage.store import Store
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

_RESOLUTION_SECONDS = 10.0


def digest_of(request: trainer.TrainRequest) -> str:
    """Return a digest that equal requests share; the request id does not count, nor do unknown fields."""
    same = trainer.TrainRequest()
    same.CopyFrom(request)
    same.DiscardUnknownFields()
    same.ClearField("request_id")
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()


async def resolve(
    request: trainer.TrainRequest,
    store: Store,
    files: StoredFiles,
    devices: Devices,
    thread_count: int,
    threads: BoundedThreads,
) -> Submission:
    """Return ``request`` as a checked submission with every default filled in; its job has ``thread_count`` threads.

    It is checked in one of ``threads``.

    Raises `InvalidRequest` with every field that breaks a rule, `NotFound` for a data set or model that does not exist,
    `DataLoss` where a file of theirs is missing or cut, `PreconditionFailed` for a device or runner that can't be used,
    and `ResourceExhausted` where the device has too little memory or the check takes too long.
    """
    check = Violations()
    check.unknown_fields("", request)
    request_id = check(lambda: check_request_id(request.request_id)) if request.request_id else None
    job_id = check(lambda: check_id("training_job_id", request.training_job_id)) if request.training_job_id else None
    model_id = check(lambda: check_id("model_id", request.model_id)) if request.model_id else None
    labels = check(lambda: check_labels("labels", request.labels))
    note = check(lambda: check_note("note", request.note))
    check.choices(request.spec)
    sources = await _sources(request.spec, check, store, files)
    check.digests(request.spec, sources)
    report, device = await _device(request.spec.device, devices)

    def submission() -> Submission:
        spec, memory_bytes = _resolved(request.spec, check, sources, report, device, thread_count)
        assert sources.train is not None
        row_count = sources.train.row_count
        _ = spec.digest  # which is kept: here, and not on the event loop, because a long spec takes long
        return Submission(
            request_id,
            digest_of(request),
            job_id or "",
            model_id or "",
            spec,
            row_count,
            memory_bytes,
            labels or {},
            note or "",
        )

    try:
        return await threads.run(submission, _RESOLUTION_SECONDS)
    except TimeoutError:
        text = f"the spec must be checked within {_RESOLUTION_SECONDS:g} seconds; try again when less goes on"
        raise ResourceExhausted("RESOLUTION_TIMEOUT", text) from None


def _resolved(
    asked: trainer.TrainingSpec,
    check: Violations,
    sources: Sources,
    report: DeviceReport,
    device: str,
    thread_count: int,
) -> tuple[TrainingSpec, int]:
    """Return the resolved spec and the bytes of memory that its run takes; raises as `resolve`."""
    spec = full_spec(asked, sources, device)
    for violation in find_violations(spec, *_encoded(sources)):
        check.add(f"spec.{violation.field}", f"spec.{violation.description}")
    check.loss(asked.loss, spec)
    check.warm_start(asked, spec, sources)
    check.columns(asked, sources)
    check.finish()
    assert sources.train is not None
    if missing := missing_for(spec.runner, spec.device):
        raise PreconditionFailed("RUNNER_UNAVAILABLE", f"spec.runner must be a runner that this server has: {missing}")
    return spec, _check_memory(spec, sources.datasets, report, thread_count)


def _encoded(sources: Sources) -> tuple[DatasetRecord | None, DatasetRecord | None, DatasetRecord | None]:
    """Return the data sets with the widths that their rows will have: those of the model to go on from, or the first.

    Whether they can have them, `Violations.columns` tells.
    """
    train, model = sources.train, sources.model
    if train and model and train.input_size == model.input_size:
        train = replace(train, encoded_size=model.spec.layer_sizes[0])
    validation, test = (
        replace(rows, encoded_size=train.encoded_size)
        if train and rows and rows.input_size == train.input_size
        else rows
        for rows in (sources.validation, sources.test)
    )
    return train, validation, test


async def _sources(spec: trainer.TrainingSpec, check: Violations, store: Store, files: StoredFiles) -> Sources:
    train_id = check(lambda: parse_dataset("spec.train_dataset", spec.train_dataset))
    train = await store.dataset(train_id) if train_id else None
    model = None
    validation, test = [
        await store.dataset(dataset_id)
        if name and (dataset_id := check(partial(parse_dataset, f"spec.{field}", name)))
        else None
        for field, name in (("validation_dataset", spec.validation_dataset), ("test_dataset", spec.test_dataset))
    ]
    if spec.HasField("warm_start") and (
        name := check(lambda: parse_model("spec.warm_start.model", spec.warm_start.model))
    ):
        model = await store.model(*name)
    sources = Sources(train, validation, test, model)
    try:
        if model:
            files.require_model(model)
        for record in sources.datasets:
            files.require_dataset(record)
    except DataLoss:
        await _require_rows(store, sources)
        raise
    return sources


async def _require_rows(store: Store, sources: Sources) -> None:
    """Raise `NotFound` where a file is missing because what it held was deleted since its row was read."""
    for record in sources.datasets:
        await store.dataset(record.id)
    if model := sources.model:
        await store.model(model.model_id, model.version)


def _check_memory(
    spec: TrainingSpec, datasets: Sequence[DatasetRecord], device: DeviceReport, thread_count: int
) -> int:
    """Return the estimated memory in bytes of a run on the first of ``datasets``, scored on the others.

    Raises `ResourceExhausted` if the device has less in all.
    """
    train, *others = datasets
    needed = estimate_bytes(spec, train, train.size_bytes // train.row_count, thread_count, others)
    if 0 < device.memory_bytes < needed:
        raise ResourceExhausted(
            "DEVICE_MEMORY",
            f"the run must fit into the {device.memory_bytes:,} bytes of device {spec.device}, it needs about "
            f"{needed:,}; try smaller layers or a smaller batch",
            needed_bytes=needed,
            device_bytes=device.memory_bytes,
        )
    return needed


async def _device(device: types.Device.ValueType, devices: Devices) -> tuple[DeviceReport, str]:
    if device == types.DEVICE_CPU:
        return devices.cpu(), "cpu"
    cuda = await devices.cuda()
    if cuda.usable:
        return cuda, "cuda"
    if device == types.DEVICE_CUDA:
        raise PreconditionFailed(
            "DEVICE_UNAVAILABLE", f"spec.device must be usable on this server, CUDA is not: {cuda.description}"
        )
    return devices.cpu(), "cpu"
