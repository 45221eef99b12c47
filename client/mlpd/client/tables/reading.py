"""Rows and what to learn of them, from a user's file or frame."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, TypedDict, Unpack

import numpy as np
from mlpd.client.columns import is_unnamed, listed, places_of
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.answers import answers_from, are_numbers, check_task, target_column
from mlpd.client.tables.archives import arranged_like, is_archive, read_labelled_arrays, read_row_arrays
from mlpd.client.tables.columns import Column
from mlpd.client.tables.files import OnProgress, unchanged
from mlpd.client.tables.kinds import check_categories
from mlpd.client.tables.opening import open_source
from mlpd.client.tables.source import Source
from mlpd.client.tables.table import LabelledTable, Schema, Table
from mlpd.client.tables.values import Values, assembled, read_columns

_TARGET_NAMES = ("label", "target", "class", "y")
_PLURALS = {"category": "categories", "boolean": "booleans", "date": "dates"}


class TextOptions(TypedDict, total=False):
    """How a text file is written; what is not said is found in it.

    ``header`` says whether its first line names the columns, ``separator`` stands between cells, ``decimal`` is "." or
    ",", ``encoding`` one that Python knows. ``date_order``, "dmy", "mdy" or "ymd", has dates that are not ISO read; it
    counts for texts in any kind of table.
    """

    header: bool | None
    separator: str | None
    decimal: str | None
    encoding: str | None
    date_order: str | None


class TableOptions(TextOptions, total=False):
    """How a table is understood; columns go by name or number, negative from the end.

    ``target`` are the columns to learn, by default the one called label, target, class or y, unless there is an x too,
    else the last; ``weight`` is how much each row counts, ``category`` are columns to take as texts, ``leave_out``
    those that are no inputs. ``task`` has the target be classes (multiclass, binary) or numbers (regression,
    multilabel). ``drop_unlabelled`` leaves out rows that lack a target, which are refused else.
    """

    target: str | Sequence[str] | None
    weight: str | None
    category: Sequence[str] | None
    leave_out: Sequence[str] | None
    task: str
    drop_unlabelled: bool | None


def read_labelled(
    data: Any,
    like: Schema | None = None,
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[TableOptions],
) -> LabelledTable:
    """Return rows and what to learn of them, from a path or a frame; ``like`` is what a table of the same columns is.

    ``on_progress`` is called with the bytes of a file that are read, and all; some files are read more than once.

    The rules are those of `mlpd.client.tables.kinds` and `mlpd.client.tables.answers`; `archives` says what files of
    arrays hold. Raises `InvalidRequest` with one sentence, of where, rule and value, for what does not fit.
    """
    with unchanged(data):
        if is_archive(data):
            table = read_labelled_arrays(Path(data), options, on_progress)
            return arranged_like(table, like) if like else table
        text = TextOptions(**{name: value for name, value in options.items() if name in TextOptions.__annotations__})  # type: ignore[typeddict-item]
        return _labelled(open_source(data, text, on_progress), like, options)


def read_table(data: Any, **options: Unpack[TableOptions]) -> Table:
    """Return all columns of a frame as inputs, but for those to leave out."""
    source = open_source(data, {"date_order": options.get("date_order")})
    ignored = source.header.columns("leave_out", options.get("leave_out") or ())
    return _table(source, _without(range(source.header.count), ignored), options)


def read_rows(
    data: Any,
    columns: Sequence[Column] = (),
    owner: str = "",
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[TextOptions],
) -> Table:
    """Return rows without labels, from a path or a frame, for the model ``owner``.

    Where both have names, columns are matched with the model's ``columns``, in their order, and are read as what these
    are: numbers as `ModelVersion.columns` says, -1 for an unknown category. A model without names takes numbers alone;
    without a model, columns are read as what they hold. ``on_progress`` is called with the bytes of a file that are
    read, and all. Raises `InvalidRequest` for what does not fit.
    """
    with unchanged(data):
        if is_archive(data):
            return read_row_arrays(Path(data), columns, owner, options, on_progress)
        return _rows(open_source(data, options, on_progress), columns, owner)


def _rows(source: Source, columns: Sequence[Column], owner: str) -> Table:
    everything = list(range(source.header.count))
    if columns:
        places = _places(source, everything, columns, owner)
    else:
        places = _without(everything, _row_numbers(source, everything))
        if not owner:
            return _table(source, places, {})
        columns = [Column(source.header.name(place)) for place in places]
    values, left_out = read_columns(source, dict(zip(places, columns, strict=True)))
    others = _without(everything, places)
    return Table(**_inputs(source, values, left_out, others, owner or "the model"))


def _table(source: Source, places: Sequence[int], options: TableOptions) -> Table:
    values, left_out = read_columns(source, dict.fromkeys(places), _categories(source, options))
    return Table(**_inputs(source, values, left_out, _without(range(source.header.count), places)))


def _without(places: Iterable[int], others: Iterable[int]) -> list[int]:
    """Return those of ``places`` that are not among ``others``."""
    left_out = set(others)
    return [place for place in places if place not in left_out]


def _categories(source: Source, options: TableOptions) -> list[int]:
    """Return where the columns are that are categories whatever they hold, as the table or who reads it says."""
    return [*source.categories, *source.header.columns("category", options.get("category") or ())]


def _places(source: Source, among: Sequence[int], columns: Sequence[Column], owner: str) -> list[int]:
    """Return where a model's or another table's columns are: by their names, or in order where there are none."""
    header = source.header
    if header.names:
        found, _ = places_of(
            header.table, [header.names[place] for place in among], [column.name for column in columns], owner
        )
        return [among[place] for place in found]
    if len(columns) != len(among):
        raise InvalidRequest(f"{header.table} must have {len(columns)} columns, as {owner} has, got {len(among)}")
    source.notes.append(f"columns are taken in their order, since {header.table} has no names of columns")
    return list(among)


def _row_numbers(source: Source, places: Sequence[int]) -> list[int]:
    """Return those columns that have no name and count the rows, as pandas writes its index, or hold nothing.

    Raises `InvalidRequest` for a column without a name that holds something else.
    """
    header = source.header
    unnamed = [place for place in places if header.names and is_unnamed(header.names[place])]
    for place in unnamed:
        try:
            ((_, values),) = read_columns(source, {place: Column(header.name(place))})[0].items()
            is_empty = values.missing_count == values.row_count  # where lines end with a separator
            is_counting = is_empty or np.array_equal(values.array(), np.arange(values.row_count))
        except InvalidRequest:
            is_counting = False
        if not is_counting:
            where = f"{header.table}, line 1, column {place + 1}"
            raise InvalidRequest(
                f"{where}, must have a name, got {header.names[place]!r}; if it is an index, leave it out: --leave-out "
                f"{place - header.count}, or index=False where pandas writes the file; if it is a title, delete it"
            )
    return unnamed


def _labelled(source: Source, like: Schema | None, options: TableOptions) -> LabelledTable:
    header, task = source.header, options.get("task", "")
    uses, notes = _uses(source, like, options)
    taken = {place for own in uses.values() for place in own}
    inputs: dict[int, Column | None] = dict.fromkeys(place for place in range(header.count) if place not in taken)
    owner = like.owner if like and like.columns else ""
    if like and like.columns:
        places = _places(source, list(inputs), like.columns, like.owner)
        extra = _without(inputs, places)
        inputs = dict(zip(places, like.columns, strict=True))
    else:
        extra = _row_numbers(source, list(inputs))
        inputs = {place: Column(header.name(place)) if like else None for place in _without(inputs, extra)}
    if not inputs:
        raise InvalidRequest(f"{header.table} must have columns left for inputs")
    targets, weights = uses["target"], uses["weight"]
    check_task(task, len(targets))
    wanted = inputs | {place: target_column(header.name(place), like) for place in targets}
    wanted |= {place: Column(header.name(place)) for place in weights}
    categories = _categories(source, options)
    classes = () if are_numbers(len(targets), task, like) else targets
    if options.get("drop_unlabelled"):
        notes += _drop_unlabelled(source, {place: wanted[place] for place in targets}, categories, classes)
    values, left_out = read_columns(source, wanted, categories, classes)
    unknown = {place: own.unknown for place, own in values.items() if own.unknown and place in inputs}
    if unknown and not (like and like.takes_unknown):
        values = _with_categories(source, wanted, unknown)
    _check_answers(source, values, left_out, targets, weights)
    constant = [values[place].column.name for place in targets if values[place].is_constant]
    notes += [f"always the same, so there is nothing to learn: {listed(constant)}"] if constant else []
    answers = answers_from([values.pop(place) for place in targets], task, like)
    weight = [values.pop(place).array() for place in weights]
    roles = {"labels" if answers.labels is not None else "targets": targets, "weights": weights}
    fields = _inputs(source, values, left_out, [*uses["leave_out"], *extra], owner)
    fields["notes"] = (*notes, *answers.notes, *fields["notes"])
    return LabelledTable(
        **fields,
        labels=answers.labels,
        targets=answers.targets,
        weights=weight[0] if weight else None,
        class_names=answers.class_names,
        target_names=tuple(header.names[place] for place in targets) if header.names else (),
        sources={role: tuple(map(header.name, own)) for role, own in roles.items() if own},
    )


def _drop_unlabelled(
    source: Source, targets: Mapping[int, Column | None], categories: Collection[int], classes: Collection[int]
) -> list[str]:
    """Have the source leave out rows that lack one of ``targets``; return the note about it."""
    values, _ = read_columns(source, targets, categories, classes)
    if not any(own.missing_count for own in values.values()):
        return []
    dropped = np.logical_or.reduce([np.isnan(own.array()) for own in values.values()])
    names = listed([own.column.name for own in values.values()])
    if dropped.all():
        raise InvalidRequest(f"{source.header.table} must hold a row that has {names}, got none of {len(dropped):,}")
    source.dropped = dropped
    return [f"{int(dropped.sum()):,} of {len(dropped):,} rows are left out, as they lack {names}"]


def _with_categories(
    source: Source, wanted: Mapping[int, Column | None], unknown: Mapping[int, Counter[str]]
) -> dict[int, Values]:
    """Read columns again whose categories another table lacks: they come after that table's own."""
    longer = dict(wanted)
    for place, texts in unknown.items():
        column = longer[place]
        assert column is not None
        check_categories(column.name, tuple(texts))
        longer[place] = replace(column, categories=(*column.categories, *sorted(texts)))
    values, _ = read_columns(source, longer)
    for place, texts in unknown.items():
        values[place].unknown = texts
    return values


def _uses(source: Source, like: Schema | None, options: TableOptions) -> tuple[dict[str, list[int]], list[str]]:
    """Return where the columns are that are asked for, by use; raises `InvalidRequest` for one with several."""
    header, target, weight, notes = source.header, options.get("target"), options.get("weight"), []
    if not target:
        target, note = _target(source, like)
        notes.append(note)
    asked: dict[str, Sequence[str]] = {
        "target": [target] if isinstance(target, str) else target,
        "weight": [weight] if weight else [],
        "leave_out": options.get("leave_out") or (),
    }
    uses = {use: header.columns(use, columns) for use, columns in asked.items()}
    taken = [column for columns in uses.values() for column in columns]
    if twice := [column for column in taken if taken.count(column) > 1]:
        name = header.name(twice[0])
        raise InvalidRequest(f"each column must have one use, {name} of {header.table} has several")
    return uses, notes


def _target(source: Source, like: Schema | None) -> tuple[list[str], str]:
    """Return which columns are learnt where nothing is said, and the note about it."""
    header = source.header
    if like and like.target_names and header.names:
        if missing := [name for name in like.target_names if name not in header.names]:
            what = f"{header.table} must have {listed(missing)}, as what is learnt is called in {like.owner}"
            raise InvalidRequest(f"{what}; it has {listed(header.names)}; --target takes another")
        return list(like.target_names), f"{listed(like.target_names)} is what is learnt, as in {like.owner}"
    lower = [name.lower() for name in header.names]
    called = [
        name for name in header.names if name.lower() in _TARGET_NAMES and not (name.lower() == "y" and "x" in lower)
    ]
    if len(called) > 1:
        raise InvalidRequest(
            f"target must be said where several columns can be it, got {listed(called)}: --target NAME"
        )
    if called:
        return called, f"{called[0]} is what is learnt, by its name; --target takes another"
    return ["-1"], f"{header.name(header.count - 1)}, the last column, is what is learnt; --target takes another"


def _check_answers(
    source: Source,
    values: Mapping[int, Values],
    left_out: Mapping[int, str],
    targets: Sequence[int],
    weights: Sequence[int],
) -> None:
    """Raise `InvalidRequest` for a target or weight that can't be used, or has rows without a value."""
    for place in (*targets, *weights):
        column = source.header.place(place)
        if place in left_out:
            way = f"give --target another column, or take it for classes: --category {quote(source.header.name(place))}"
            raise InvalidRequest(f"{source.header.table}, {column}, can't be learnt: {left_out[place]}; {way}")
        own = values[place]
        if own.first_missing is not None:
            where = f"{source.where(source.row_of(own.first_missing))}, {column}"
            rows = f"{own.missing_count:,} of {own.row_count:,} rows lack it"
            if place in targets:
                rows += "; --drop-unlabelled leaves them out (drop_unlabelled=True)"
            raise InvalidRequest(f"{where}, must have a value in every row, got none; {rows}")
        if own.unknown:
            text, known = next(iter(own.unknown)), listed(own.column.categories)
            raise InvalidRequest(f"{source.header.table}, {column}, must be one of {known}, got {text[:40]!r}")


def _inputs(
    source: Source,
    values: Mapping[int, Values],
    left_out: Mapping[int, str],
    others: Sequence[int],
    owner: str = "",
) -> dict[str, Any]:
    """Return the fields of a `Table` of the columns ``values``; ``others`` are left out without a reason to tell.

    Columns without any value are left out too, unless they are those of an ``owner``.
    """
    if source.doubt:
        raise InvalidRequest(source.doubt)
    header, name_of = source.header, source.header.name
    kept = {place: own for place, own in values.items() if owner or own.missing_count < own.row_count}
    empty = {place: "it has no values" for place in values if place not in kept}
    if not kept:
        raise InvalidRequest(f"{header.table} must have at least one row and one column with values, got none")
    reasons = {**left_out, **empty}
    notes = [*source.notes, *_described(list(kept.values()))]
    if not owner and (counting := [own.column.name for own in kept.values() if own.counts_rows]):
        notes.append(
            f"each row has a number of its own: {listed(counting)}; if it is an id, --leave-out {quote(counting[0])}"
        )
    columns = tuple(own.column for own in kept.values())
    is_plain = all(own.column.kind == "number" and not own.missing_count for own in kept.values())
    if not header.names and not is_plain and not owner:
        notes.append("columns have no names, and are called column 1, column 2, ...")
    return {
        "columns": columns if header.names or not is_plain else (),
        "is_plain": is_plain,
        "header": source.has_header,
        "left_out": tuple(map(name_of, sorted([*others, *reasons]))),
        "notes": tuple(notes),
        "warnings": (
            *([] if owner else _codes(source, kept)),
            *(f"{name_of(place)} is left out: {reason}" for place, reason in reasons.items()),
            *(_unseen(own, owner) for own in kept.values() if own.unknown),
        ),
        "unknown": {own.column.name: dict(own.unknown) for own in kept.values() if own.unknown},
        "inputs": assembled(list(kept.values())),
    }


def _codes(source: Source, values: Mapping[int, Values]) -> list[str]:
    """Say which numbers are written like codes."""
    names = [own.column.name for place, own in values.items() if place in source.codes and own.column.kind == "number"]
    return [
        f"{name} is a number, though it has a 0 in front of some; if it is a code, --category {quote(name)}"
        for name in names
    ]


def _unseen(values: Values, owner: str) -> str:
    count = sum(values.unknown.values())
    texts = listed([repr(text) for text in sorted(values.unknown)])
    rows = "1 row has" if count == 1 else f"{count:,} rows have"
    return f"{rows} a {values.column.name} that {owner} has not seen: {texts}"


def _described(columns: Sequence[Values]) -> list[str]:
    """Say what is not a plain number, or only one."""
    names = {kind: [own.column.name for own in columns if own.column.kind == kind] for kind in _PLURALS}
    notes = [f"{plural}: {listed(names[kind])}" for kind, plural in _PLURALS.items() if names[kind]]
    missing = [f"{own.column.name} ({own.missing_count:,})" for own in columns if own.missing_count]
    constant = [own.column.name for own in columns if own.is_constant]
    notes += [f"values are missing: {listed(missing)}"] if missing else []
    return [*notes, *([f"always the same: {listed(constant)}"] if constant else [])]
