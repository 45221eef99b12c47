"""Dates as texts: ISO 8601, and in an order of day, month and year that whoever reads the table has to say."""

import re
from datetime import UTC, datetime, timedelta

DAY_MICROSECONDS = 86_400e6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_ISO_RULE = "must be an ISO date, like 2026-11-27 or 2026-11-27 08:30"

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
_DAY, _MONTH, _YEAR = r"(?P<day>\d{1,2})", rf"(?P<month>\d{{1,2}}|(?:{_NAMES})\b\.?)", r"(?P<year>\d{4})"
_TIME = (
    r"(?:(?:T|,? )(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    r"(?: ?(?P<half>[ap])m)?(?P<zone> ?(?:Z|[+-]\d\d:?\d\d))?)?"
)
_GAP, _SAME_GAP = r"(?P<gap>[./ -])", r"(?:(?P=gap)|, )"
_WRITTEN = {
    order: re.compile(first + _GAP + second + _SAME_GAP + third + _TIME, re.ASCII | re.IGNORECASE)
    for order, first, second, third in (
        ("dmy", _DAY, _MONTH, _YEAR),
        ("mdy", _MONTH, _DAY, _YEAR),
        ("ymd", _YEAR, _MONTH, _DAY),
    )
}
_EXAMPLES = {"dmy": "27.11.2026 or 27 Nov 2026", "mdy": "11/27/2026 or Nov 27, 2026", "ymd": "2026/11/27"}
DATE_ORDERS = tuple(_WRITTEN)

# What people take for dates: 27.11.2026 and 11/27/26 and 2026/1/5 8:30 PM and 27 Nov 2026.
_NUMBERS = r"\d{1,2}([./-])\d{1,2}\1(\d\d|\d{4})|\d{4}([./-])\d{1,2}\3\d{1,2}"
_WORDS = rf"\d{{1,2}}[. -]{{1,2}}({_NAMES})\b[. ,-]{{1,2}}(\d\d|\d{{4}})|({_NAMES})\b[. ]{{1,2}}\d{{1,2}},? \d{{4}}"
_LIKE_DATE = re.compile(rf"(?:{_NUMBERS}|{_WORDS})([T ,]+\d{{1,2}}:\d\d.*)?", re.ASCII | re.IGNORECASE)


def date_of(text: str, order: str = "") -> float:
    """Return days since 1970-01-01, in UTC where a text names no zone; raises `ValueError` where it is no date.

    A date that is not ISO is read by ``order``, "dmy", "mdy" or "ymd", of day, month and year.
    """
    if _ISO.fullmatch(text):
        try:
            return _days(datetime.fromisoformat(text))
        except ValueError:
            raise ValueError(_ISO_RULE) from None
    if not order:
        raise ValueError(_ISO_RULE)
    found = _WRITTEN[order].fullmatch(text)
    try:
        if found:
            return _days(_read(found))
    except ValueError:  # there is no such day, or hour
        pass
    raise ValueError(f"must be a date in the order {order}, like {_EXAMPLES[order]}, with four digits of its year")


def is_like_date(text: str) -> bool:
    """Whether people take a text that is no ISO date for a date."""
    return bool(_LIKE_DATE.fullmatch(text))


def orders_of(text: str) -> set[str]:
    """Return the orders in which a text is a date."""
    return {order for order in DATE_ORDERS if _is_date(text, order)}


def way_of(orders: set[str]) -> str:
    """Return what to do about dates that can be read in ``orders``, of which none was said."""
    if not orders:
        return "; if they are dates, write all as ISO dates"
    if len(orders) > 1:
        return "; day or month can come first: say which, with --date-order dmy or mdy (date_order='dmy')"
    (order,) = orders
    return f"; if its dates are in the order {order}, say --date-order {order} (date_order='{order}')"


def _is_date(text: str, order: str) -> bool:
    try:
        date_of(text, order)
    except ValueError:
        return False
    return True


def _read(found: re.Match[str]) -> datetime:
    month, hour = found["month"].lower(), int(found["hour"] or 0)
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + 12 * (found["half"].lower() == "p")
    day = f"{found['year']}-{number:02}-{int(found['day']):02}"
    time = f"{hour:02}:{found['minute'] or '00'}:{found['second'] or '00'}.{found['fraction'] or '0'}"
    return datetime.fromisoformat(f"{day}T{time}{(found['zone'] or '').strip().upper()}")


def _days(time: datetime) -> float:
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since // _MICROSECOND) / DAY_MICROSECONDS
