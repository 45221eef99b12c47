"""Images: IDX files, as MNIST comes in, and folders of pictures, one folder a class."""

import gzip
import re
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.columns import listed
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.libraries import load
from mlpd.client.tables.table import LabelledTable, Table
from numpy.typing import NDArray

_IDX_NAME = re.compile(r".*([.-]idx\d?|-ubyte)(\.gz)?", re.IGNORECASE)
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_GRAY_MODES = ("1", "L")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def is_idx(path: Path) -> bool:
    """Whether a file is an IDX file by its name, like train-images-idx3-ubyte.gz."""
    return bool(_IDX_NAME.fullmatch(path.name))


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in an IDX file; raises `InvalidRequest` where it is none or is cut."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidRequest(f"{path} can't be read as IDX: {str(error)[:200]}") from error
    dtype, dimensions = _IDX_TYPES.get(content[2]) if len(content) > 3 else None, content[3:4]
    start = 4 + 4 * (dimensions[0] if dimensions else 0)
    if not content.startswith(b"\0\0") or dtype is None or not 4 < start <= len(content):
        raise InvalidRequest(f"{path} can't be read as IDX: it must begin with 0, 0, a type and its dimensions")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    size_bytes = prod(shape) * np.dtype(dtype).itemsize
    if len(content) - start != size_bytes:
        raise InvalidRequest(f"{path} must hold {size_bytes:,} bytes of {list(shape)}, got {len(content) - start:,}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def read_labelled_idx(path: Path, target: str = "") -> LabelledTable:
    """Return the images (rows, height, width) of an IDX file, with the labels of the file ``target`` beside it.

    By default that is the file whose name has labels and idx1 in the place of images and idx3.
    """
    beside = path.with_name(target or path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.exists():
        way = "say which it is with --target"
        raise InvalidRequest(f"{path.name} must have a file of labels beside it, got no {beside.name}; {way}")
    return LabelledTable(read_idx(path), labels=read_idx(beside), sources={"labels": (beside.name,)})


def read_labelled_folder(folder: Path) -> LabelledTable:
    """Return the pictures in the folders of ``folder``, whose names are the classes; raises `InvalidRequest`."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and _pictures(path))
    paths = [(label, path) for label, name in enumerate(classes) for path in _pictures(folder / name)]
    if not paths:
        raise InvalidRequest(f"{folder} must hold folders of pictures, one a class, got none")
    return LabelledTable(
        _stacked(folder, [path for _, path in paths]),
        labels=np.array([label for label, _ in paths]),
        class_names=tuple(classes),
        sources={"labels": ("the names of folders",)},
    )


def read_folder(folder: Path) -> Table:
    """Return the pictures in a folder, by their names; raises `InvalidRequest` for one of another size."""
    paths = _pictures(folder)
    if not paths:
        raise InvalidRequest(f"{folder.name} must hold pictures ({', '.join(_PICTURES)}), got none")
    return Table(_stacked(folder, paths))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def _stacked(folder: Path, paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Return pictures (rows, height, width), or (rows, height, width, 3) where they have colours."""
    pillow = load("PIL.Image", folder.name)
    pixels: dict[Path, NDArray[np.uint8]] = {}
    for path in paths:
        try:
            with pillow.open(path) as picture:
                pixels[path] = np.asarray(picture.convert("L" if picture.mode in _GRAY_MODES else "RGB"))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{path} can't be read as a picture: {str(error)[:200]}") from error
    first, shape = paths[0], pixels[paths[0]].shape
    if other := [str(path.relative_to(folder)) for path in paths if pixels[path].shape != shape]:
        rule = f"pictures of one size and of gray or colour alike, {list(shape)} as {first.relative_to(folder)}"
        raise InvalidRequest(f"{folder.name} must hold {rule}, got another in {listed(other)}; convert them")
    return np.stack([pixels[path] for path in paths])
