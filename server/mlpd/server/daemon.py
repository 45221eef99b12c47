"""Puts the rooms of the server together, opens the port, and drains."""

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from mlpd.server.executors.devices import Devices
from mlpd.server.executors.kernels import kernels_directory, warm
from mlpd.server.executors.process import ProcessExecutor
from mlpd.server.inference.rows import MAX_PREDICTION_VALUES
from mlpd.server.inference.serving import Serving
from mlpd.server.jobs.events import EventLog
from mlpd.server.jobs.queue import JobLimits, Jobs
from mlpd.server.options import ServerOptions
from mlpd.server.services.datasets import DatasetService
from mlpd.server.services.models import ModelService
from mlpd.server.services.trainer import TrainerService
from mlpd.server.storage import schema
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.contents import Contents
from mlpd.server.storage.database import Database
from mlpd.server.storage.datasets import PREFERRED_CHUNK_BYTES, Datasets
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.retention import Retention
from mlpd.server.storage.store import Store
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.server.supervision import Supervisor
from mlpd.server.wire.guard import Guard
from mlpd.v1 import dataset_service_pb2, model_service_pb2, trainer_service_pb2
from mlpd.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from mlpd.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from mlpd.v1.trainer_service_pb2_grpc import add_TrainerServiceServicer_to_server

_logger = structlog.get_logger()
_STREAM_END_SECONDS = 2.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024  # a safeguard: answers are limited to less where they are made

SERVICE_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (trainer_service_pb2, "TrainerService"),
        (dataset_service_pb2, "DatasetService"),
        (model_service_pb2, "ModelService"),
    )
)


class PortTaken(Exception):
    """The address can't be listened on."""


class Daemon:
    """One server: `run` serves until it is told to stop, and then drains."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Drain and end `run`; asking twice is the same as once."""
        self._stopping.set()

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve; ``ready(address)`` is called once requests are answered.

        Raises `DataDirectoryInUse`, `DatabaseMissing`, `PortTaken`, `SchemaMismatch`, `StorageTrouble`, `OSError`, or
        SQLAlchemy's ``DatabaseError`` when it can't start. If a vital part ends while it serves, the process ends
        (`Supervisor`).
        """
        options = self._options
        async with AsyncExitStack() as stack:
            directory = DataDirectory(options.data_directory)
            stack.callback(directory.close)
            directory.require_database()
            database = Database(directory.database, schema.metadata, schema.VERSION, directory.storage)
            stack.callback(database.close)
            supervisor = Supervisor()
            stack.callback(supervisor.release)
            supervisor.watch("database writer", asyncio.wrap_future(database.writer_ended))
            log: EventLog[trainer_service_pb2.StreamProgressResponse] = EventLog()
            store = Store(database, supervisor.vital("event log", log.publish))
            devices = Devices()
            stack.callback(devices.close)
            files = StoredFiles(directory)
            kernels = kernels_directory(directory.root)
            serving = Serving(files, kernels, options.max_serving_bytes)
            stack.callback(serving.close)
            contents = Contents(database, directory)
            housekeeping = Housekeeping(database, directory, contents, log.forget, serving.models.forget)
            datasets = Datasets(directory, store, files, contents, options.max_dataset_bytes)
            executor = ProcessExecutor()
            jobs = Jobs(store, directory, kernels, executor, _job_limits(options))
            trainer = TrainerService(
                store, files, datasets, housekeeping, jobs, log, serving, devices, _server_info(options)
            )
            services = DatasetService(store, datasets, housekeeping), ModelService(store, housekeeping)
            server, health_service = _grpc_server(options, trainer, *services)
            address = _listen(server, options)

            await datasets.add_mnist()
            await jobs.recover()
            await housekeeping.collect()
            await server.start()
            await _tell_health(health_service, True)
            supervisor.watch("job queue", asyncio.create_task(jobs.run()))
            watching = _watch_storage(directory, database, contents, health_service)
            supervisor.watch("storage watch", asyncio.create_task(watching))
            retention = Retention(store, housekeeping, options.keep_jobs_days, options.keep_versions)
            supervisor.watch("retention", asyncio.create_task(retention.run()))
            _announce(options, address, directory)
            ready(address)
            await stack.enter_async_context(executor)
            stack.callback(asyncio.create_task(warm(kernels)).cancel)

            await self._stopping.wait()
            _logger.info("draining")
            await health_service.enter_graceful_shutdown()
            await self._drain(jobs, log, server)

    async def _drain(
        self, jobs: Jobs, log: EventLog[trainer_service_pb2.StreamProgressResponse], server: grpc.aio.Server
    ) -> None:
        """Let running jobs go back to the queue, then end the streams of their followers, and at last all calls."""
        with suppress(TimeoutError):
            await asyncio.wait_for(jobs.drain(), self._options.drain_seconds)
        log.close()
        await server.stop(_STREAM_END_SECONDS)
        _logger.info("drained")


def _announce(options: ServerOptions, address: str, directory: DataDirectory) -> None:
    _logger.info("serving", address=address, data_directory=str(directory.root))
    if not is_loopback(options.host):
        _logger.warning("whoever reaches this address can use the server: there is no authentication")


def _job_limits(options: ServerOptions) -> JobLimits:
    return JobLimits(
        running_jobs=options.running_jobs,
        queued_jobs=options.queued_jobs,
        thread_count=options.thread_count,
        checkpoint_interval_seconds=options.checkpoint_interval_seconds,
        stop_seconds=options.stop_seconds,
    )


def _server_info(options: ServerOptions) -> trainer_service_pb2.GetServerInfoResponse:
    """Return what GetServerInfo tells that stays the same for as long as a server runs."""
    return trainer_service_pb2.GetServerInfoResponse(
        server_version=version("mlpd"),
        max_message_bytes=options.max_message_bytes,
        preferred_chunk_bytes=PREFERRED_CHUNK_BYTES,
        max_dataset_bytes=options.max_dataset_bytes,
        max_prediction_values=MAX_PREDICTION_VALUES,
        max_serving_bytes=options.max_serving_bytes,
    )


async def _watch_storage(
    directory: DataDirectory, database: Database, contents: Contents, service: health.aio.HealthServicer
) -> None:
    """Keep the health of the server true to its disk, which is well again once it takes a commit and a file."""

    async def write_nothing() -> None:
        await database.write_nothing()
        with directory.storage.watched():
            await asyncio.to_thread(directory.write_nothing)

    async def tell(serving: bool) -> None:
        await _tell_health(service, serving)
        if serving:
            await contents.remove_left()

    await directory.storage.watch(write_nothing, tell)


async def _tell_health(service: health.aio.HealthServicer, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", *SERVICE_NAMES):
        await service.set(name, status)


def _grpc_server(
    options: ServerOptions, trainer: TrainerService, datasets: DatasetService, models: ModelService
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """Return a server with our services, health and reflection, and its health service."""
    server = grpc.aio.server(
        interceptors=(Guard(options.body_seconds),),
        options=(
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", _MAX_ANSWER_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 1000),
            ("grpc.max_metadata_size", 8192),
            ("grpc.absolute_max_metadata_size", 16384),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ),
    )
    add_TrainerServiceServicer_to_server(trainer, server)
    add_DatasetServiceServicer_to_server(datasets, server)
    add_ModelServiceServicer_to_server(models, server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection((*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, health_service


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, a name or address to listen on; False if it is unknown."""
    try:
        found = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def _listen(server: grpc.aio.Server, options: ServerOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        port = server.add_insecure_port(f"{host}:{options.port}")
    except RuntimeError:
        port = 0
    if port == 0:
        raise PortTaken(f"port {options.port} of {options.host} can't be listened on; is another server using it?")
    return f"{host}:{port}"


async def serve(options: ServerOptions, ready: Callable[[str], None], until_stdin_closes: bool) -> None:
    """Run a `Daemon` until SIGTERM or SIGINT, or until stdin closes if so told. A second signal ends it at once."""
    daemon = Daemon(options)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if until_stdin_closes:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

        async def watch() -> None:
            try:
                while await reader.read(1024):
                    pass
            finally:
                daemon.stop()

        watching = asyncio.create_task(watch())
    await daemon.run(ready)
    if until_stdin_closes:
        watching.cancel()
