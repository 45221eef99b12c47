"""Interpreters that lack a package of this one."""

import os
import sys
from pathlib import Path


def link_packages(folder: Path, *but: str) -> None:
    """Link every installed package into ``folder`` but those whose names begin with one of ``but``."""
    for installed in map(Path, filter(os.path.isdir, sys.path)):
        if not any(installed.glob("*.dist-info")):
            continue
        for entry in installed.iterdir():
            if not (entry.name.startswith(but) or (folder / entry.name).exists()):
                (folder / entry.name).symlink_to(entry)
