"""Page sizes and tokens of the List calls."""

import base64
import binascii
from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message
from mlpd.server.errors import InvalidRequest
from mlpd.server.names import shown

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_LIMIT = 1000
# With what goes round them, within the 4 MiB that a gRPC client takes unless it is told otherwise.
_PAGE_BYTES = 3 * 1024 * 1024

Cursor = int | str
M = TypeVar("M", bound=Message)


def page_size(size: int) -> int:
    """Return the number of items that ``page_size`` asks for; raises `InvalidRequest` when it is negative."""
    if size < 0:
        raise InvalidRequest.field("page_size", f"page_size must be 0 or more, got {size}")
    return min(size or PAGE_SIZE_DEFAULT, PAGE_SIZE_LIMIT)


def page_of(items: Iterator[tuple[Cursor, M]], size: int) -> tuple[list[M], Cursor | None]:
    """Return up to ``size`` messages, fewer where these are large, and the last one's cursor where more follow."""
    page: list[M] = []
    cursor: Cursor | None = None
    size_bytes = 0
    for own_cursor, message in items:
        size_bytes += message.ByteSize()
        if page and (len(page) == size or size_bytes > _PAGE_BYTES):
            return page, cursor
        page.append(message)
        cursor = own_cursor
    return page, None


def token_of(collection: str, cursor: Cursor | None) -> str:
    """Return the opaque token of the page after ``cursor``; "" when there is none."""
    return (
        base64.urlsafe_b64encode(f"{collection}:{cursor}".encode(errors="surrogateescape")).decode() if cursor else ""
    )


def text_cursor(collection: str, token: str) -> str:
    """Return the cursor inside a token, "" for the first page; raises `InvalidRequest` for a forged one."""
    if not token:
        return ""
    try:
        owner, _, cursor = base64.urlsafe_b64decode(token).decode(errors="surrogateescape").partition(":")
    except (binascii.Error, ValueError):
        owner = cursor = ""
    if owner != collection or not cursor:
        raise InvalidRequest.field("page_token", f"page_token must come from an earlier page, got {shown(token)}")
    return cursor


def number_cursor(collection: str, token: str) -> int | None:
    """Return the number inside a token, None for the first page; raises `InvalidRequest` for a forged one."""
    cursor = text_cursor(collection, token)
    if not cursor:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        raise InvalidRequest.field("page_token", f"page_token must come from an earlier page, got {shown(token)}")
    return int(cursor)
