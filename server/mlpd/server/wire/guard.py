"""Stands before every RPC: reads and parses the request, and turns what goes wrong into a status.

grpc.aio by itself leaves a call without a body waiting for ever, answers bad protobuf with UNKNOWN and a
class name, and sends an exception's text to the caller. The guard takes unary calls as streams of raw
bytes instead, reads under a time-out, parses, calls, and maps. It applies to every service by construction.
"""

import asyncio
import secrets
import traceback
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from mlpd.server.disk import trouble_of
from mlpd.server.errors import ServerError
from mlpd.server.wire.limits import check_body
from mlpd.server.wire.status import internal_status, simple_status, status_of_error

_logger = structlog.get_logger()
_SHORT_BYTES = 64 * 1024  # what is parsed or serialised at once; for more, others need not wait
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Parse = Callable[[bytes], Any]


class _Refused(Exception):
    """The request itself can't be used."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = simple_status(code, reason, message)


class Guard(grpc.aio.ServerInterceptor):
    """Waits at most ``body_seconds`` for each message of a request."""

    def __init__(self, body_seconds: float) -> None:
        self._body_seconds = body_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler, guarded."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        parse = _checked(method, handler.request_deserializer)
        if handler.response_streaming:
            if handler.request_streaming:
                answers = self._both_streams(method, handler.stream_stream, parse)
            else:
                answers = self._server_stream(method, handler.unary_stream, parse)
            return grpc.stream_stream_rpc_method_handler(answers, response_serializer=handler.response_serializer)
        if handler.request_streaming:
            behaviour = self._client_stream(method, handler.stream_unary, parse)
        else:
            behaviour = self._unary(method, handler.unary_unary, parse)

        async def answer(requests: object, context: Context) -> bytes:
            return await _serialised(await behaviour(requests, context), handler.response_serializer)

        return grpc.stream_unary_rpc_method_handler(answer)

    def _unary(self, method: str, behaviour: Callable[..., Awaitable[Any]], parse: Parse) -> Callable[..., Any]:
        async def call(_requests: object, context: Context) -> Any:
            async with _Mapped(method, context):
                return await behaviour(await self._only_message(context, parse), context)

        return call

    def _client_stream(self, method: str, behaviour: Callable[..., Awaitable[Any]], parse: Parse) -> Callable[..., Any]:
        async def call(_requests: object, context: Context) -> Any:
            async with _Mapped(method, context):
                return await behaviour(self._messages(context, parse), context)

        return call

    def _server_stream(self, method: str, behaviour: Callable[..., Any], parse: Parse) -> Callable[..., Any]:
        async def call(_requests: object, context: Context) -> None:
            async with _Mapped(method, context):
                answer = behaviour(await self._only_message(context, parse), context)
                if hasattr(answer, "__aiter__"):
                    async for message in answer:
                        await context.write(message)
                else:
                    await answer

        return call

    def _both_streams(self, method: str, behaviour: Callable[..., Any], parse: Parse) -> Callable[..., Any]:
        async def call(_requests: object, context: Context) -> None:
            async with _Mapped(method, context):
                async for message in behaviour(self._messages(context, parse), context):
                    await context.write(message)

        return call

    async def _only_message(self, context: Context, parse: Parse) -> Any:
        body = await self._read(context)
        if body is None:
            raise _Refused(code_pb2.INVALID_ARGUMENT, "MESSAGE_COUNT", "the call must carry one message, got none")
        request = await _parsed(body, parse)
        if await self._read(context) is not None:
            raise _Refused(code_pb2.INVALID_ARGUMENT, "MESSAGE_COUNT", "the call must carry one message, got more")
        remaining_seconds = context.time_remaining()
        if remaining_seconds is not None and remaining_seconds <= 0:
            raise _Refused(code_pb2.DEADLINE_EXCEEDED, "TOO_LATE", "the deadline had passed before any work began")
        return request

    async def _messages(self, context: Context, parse: Parse) -> AsyncIterator[Any]:
        while (body := await self._read(context)) is not None:
            yield await _parsed(body, parse)

    async def _read(self, context: Context) -> bytes | None:
        try:
            message = await asyncio.wait_for(context.read(), self._body_seconds)
        except TimeoutError:
            raise _Refused(
                code_pb2.DEADLINE_EXCEEDED, "BODY_TIMEOUT", f"no message came within {self._body_seconds:g} seconds"
            ) from None
        return None if message is grpc.aio.EOF else message


class _Mapped:
    """Ends the call with a status when its block raises."""

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: object, error: BaseException | None, where: types.TracebackType | None) -> None:
        if error is None or isinstance(error, asyncio.CancelledError | grpc.aio.AbortError):
            return
        error = trouble_of(error) or error
        if isinstance(error, ServerError):
            status = status_of_error(error)
        elif isinstance(error, _Refused):
            status = error.status
        else:
            error_id = secrets.token_hex(8)
            _logger.error("call failed", method=self._method, error_id=error_id, exc_info=error)
            status = internal_status(error_id)
        traceback.clear_frames(where)  # they hold the request, which may be large, until they are collected
        await _abort(self._context, status)


async def _abort(context: Context, status: status_pb2.Status) -> None:
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(_STATUS_CODES[status.code], status.message, details)


def _checked(method: str, parse: Parse) -> Parse:
    """Return ``parse`` of the requests of ``method``, looked through beforehand."""
    kind = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", ".")).input_type

    def check_and_parse(body: bytes) -> Any:
        check_body(body, kind)
        return parse(body)

    return check_and_parse


async def _serialised(answer: Any, serialise: Callable[[Any], bytes]) -> bytes:
    return serialise(answer) if answer.ByteSize() <= _SHORT_BYTES else await asyncio.to_thread(serialise, answer)


async def _parsed(body: bytes, parse: Parse) -> Any:
    try:
        return parse(body) if len(body) <= _SHORT_BYTES else await asyncio.to_thread(parse, body)
    except (DecodeError, ValueError, RecursionError):
        raise _Refused(
            code_pb2.INVALID_ARGUMENT, "MALFORMED_MESSAGE", "the message must be valid protobuf of the method's request"
        ) from None
