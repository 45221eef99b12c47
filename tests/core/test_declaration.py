"""Every field of a spec is declared, and what is declared holds together."""

from dataclasses import dataclass, fields

import pytest
from mlpd.core.declaration import REQUIRED, Count, Kind, Nonzero, OneOf, Range, declarations, kinds_of, setting
from mlpd.core.spec.limits import broken_limits
from mlpd.core.spec.training import TrainingSpec

from .family import FAMILY


def all_parts(kind, found):
    """Return ``found``, with the dataclass and all that it is made of, whatever is chosen."""
    if kind not in found and kind.__module__.startswith("mlpd."):  # other tests have kinds of their own
        found.add(kind)
        for own in declarations(kind).values():
            if own.form != "value":
                for part in kinds_of(own.type).values() if issubclass(own.type, Kind) else [own.type]:
                    all_parts(part, found)
    return found


@pytest.mark.parametrize("kind", sorted(all_parts(TrainingSpec, set()), key=str))
def test_every_field_is_declared_with_a_number_and_a_meaning(kind):
    declared = declarations(kind)
    assert list(declared) == [field.name for field in fields(kind)]
    for own in declared.values():
        assert own.form in ("inline", "oneof") or (own.number > 0 and own.help)
        if own.limits and not own.is_list and own.default is not REQUIRED:
            assert own.limits.holds(own.default)


def test_a_number_has_presence_in_a_message_where_0_is_not_what_nothing_means():
    @dataclass(frozen=True)
    class Choices:
        rows: int = setting(REQUIRED, "Rows", number=1, unset="every row")
        epochs: int = setting(REQUIRED, "Passes", number=2)
        zero: float = setting(0.0, "Nothing", number=3)
        share: float = setting(0.5, "A half", number=4)
        closed: bool = setting(False, "Shut", number=5)
        opened: bool = setting(True, "Not shut", number=6)
        text: str = setting("relu", "A name", number=7)

    present = [name for name, own in declarations(Choices).items() if own.optional]
    assert present == ["rows", "share", "opened"]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_sound_run_is_within_all_limits(case):
    assert list(broken_limits(case.spec)) == []


@pytest.mark.parametrize(
    ("limits", "within", "beyond", "shown"),
    [
        (Range(0, 1, below=True), [0, 0.5], [-0.1, 1, float("nan")], "[0, 1)"),
        (Range(0, 1, above=True), [0.5, 1], [0, 1.1], "(0, 1]"),
        (Range(0, above=True), [1e300], [0, float("inf"), float("nan")], "above 0"),
        (Range(0), [0], [-1, float("inf")], "at least 0"),
        (Count(1), [1, 2**62], [0], "at least 1"),
        (Count(1, 1_000_000), [1, 10**6], [0, 10**6 + 1], "1 to 1,000,000"),
        (Nonzero(), [-1.0, 0.1], [0.0, float("nan"), float("-inf")], "not 0"),
        (OneOf(("a", "b", "c")), ["a"], ["d", ""], "a, b or c"),
    ],
)
def test_limits_hold_or_not_and_are_shown(limits, within, beyond, shown):
    assert all(map(limits.holds, within))
    assert not any(map(limits.holds, beyond))
    assert str(limits) == shown
