"""Values as JSON fields: what is read is what was written, of the type that is asked for, or an error."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.core.codec import from_fields, to_fields


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    LOW = 1


@dataclass(frozen=True)
class Circle:
    name: ClassVar[str] = "circle"
    radius: float


@dataclass(frozen=True)
class Square:
    name: ClassVar[str] = "square"
    side: int


Shape = Circle | Square


@dataclass(frozen=True)
class Drawing:
    shape: Shape
    colour: Colour
    level: Level
    place: Path
    frame: Square | None
    points: tuple[tuple[float, float], ...]
    sizes: Mapping[str, tuple[int, ...]]
    title: str | None = None
    visible: bool = True


DRAWING = Drawing(
    Circle(0.1), Colour.RED, Level.LOW, Path("/a b"), None, ((1.0, -0.0), (5e-324, 1 / 3)), {"x": (1, 2), "y": ()}
)


def test_a_value_survives_its_json():
    text = json.dumps(to_fields(DRAWING))
    again = from_fields(Drawing, json.loads(text))
    assert again == DRAWING
    assert json.dumps(to_fields(again)) == text
    assert [type(value) for value in (again.colour, again.level, again.place)] == [Colour, Level, type(Path())]


@given(st.floats())
def test_a_number_survives_bit_for_bit(number):
    assert from_fields(Circle, json.loads(json.dumps(to_fields(Circle(number))))).radius.hex() == number.hex()


@pytest.mark.parametrize("shape", [Circle(1.0), Square(2)])
def test_one_of_several_kinds_is_read_by_its_name(shape):
    assert from_fields(Shape, to_fields(shape)) == shape


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": {"radius": 1.0}},
        {"shape": {"@kind": "line"}},
        {"shape": None},
        {"frame": {"@kind": "circle", "side": 1}},
        {"frame": {"side": 1.5}},
        {"frame": {"side": True}},
        {"frame": {"side": "1"}},
        {"colour": "blue"},
        {"level": "1"},
        {"place": 3},
        {"points": [[1.0]]},
        {"points": "ab"},
        {"sizes": [1]},
        {"sizes": {"x": [None]}},
        {"title": 3},
        {"visible": "false"},
        {"visible": 1},
        {"size": 3},
    ],
)
def test_what_no_such_value_has_written_is_refused(fields):
    with pytest.raises((TypeError, KeyError, ValueError)):
        from_fields(Drawing, to_fields(DRAWING) | fields)


def test_a_field_that_is_missing_is_refused_unless_it_has_a_default():
    fields = to_fields(DRAWING)
    del fields["title"]
    assert from_fields(Drawing, fields) == DRAWING
    del fields["place"]
    with pytest.raises(TypeError, match="place"):
        from_fields(Drawing, fields)
