"""Page sizes and tokens of the List calls."""

import base64
import binascii

from mlpd.server.errors import InvalidRequest
from mlpd.server.names import shown
from mlpd.server.store import PAGE_SIZE_DEFAULT, PAGE_SIZE_LIMIT


def page_size(size: int) -> int:
    """Return the number of items that ``page_size`` asks for; raises `InvalidRequest` when it is negative."""
    if size < 0:
        raise InvalidRequest.field("page_size", f"page_size must be 0 or more, got {size}")
    return min(size or PAGE_SIZE_DEFAULT, PAGE_SIZE_LIMIT)


def token_of(collection: str, cursor: int | str | None) -> str:
    """Return the opaque token of the page after ``cursor``; "" when there is none."""
    return base64.urlsafe_b64encode(f"{collection}:{cursor}".encode()).decode() if cursor else ""


def text_cursor(collection: str, token: str) -> str:
    """Return the cursor inside a token, "" for the first page; raises `InvalidRequest` for a forged one."""
    if not token:
        return ""
    try:
        owner, _, cursor = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
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
