"""How long a CSV file of 1,000,000 rows takes to read, and how much memory: here, and by the libraries alone.

Usage: python benchmarks/table_reading.py [ROUNDS]

Each reads the same file, in a process of its own, in turn. ``mlpd`` ends with the rows as one array and the labels;
what is learnt and every rule of `docs/data.md` is included. ``mlpd, file`` writes the data set's file too, and ``mlpd,
upload`` has a server on this machine store it, which checks all of it; memory is the client's. The others end with a
frame or table of their own, pyarrow also with the array that its table becomes. Memory is what the process has at most,
less what it has once its libraries are imported.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from mlpd.client import Client
from mlpd.client.embedded import embedded_server
from running import machine, spread

ROWS, COLUMNS = 1_000_000, 10
_BEGIN = """
import json, resource, sys, time
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
path = sys.argv[1]
"""
_MEASURED = """
before, started = used(), time.perf_counter()
{code}
seconds = time.perf_counter() - started
print(json.dumps([seconds, (used() - before) / 1e6]))
"""
_OURS = "import pyarrow, pyarrow.csv, pyarrow.compute\nfrom mlpd.client.tables import read_labelled"
_FILE = "from pathlib import Path\nfrom mlpd.client.arrays import dataset_tensors, write_dataset"
_WRITE = "write_dataset(Path(path).with_suffix('.safetensors'), dataset_tensors(table), table.metadata())"
_ARRAY = "import numpy as np\nimport pyarrow.csv"
SYSTEMS = {
    "mlpd": (_OURS, "table = read_labelled(path)"),
    "mlpd, file": (f"{_OURS}\n{_FILE}", f"table = read_labelled(path)\n{_WRITE}"),
    "mlpd, upload": (
        f"{_OURS}\nfrom mlpd.client import Client",
        "with Client(sys.argv[2]) as client: client.upload('table', path)",
    ),
    "pyarrow": ("import pyarrow.csv", "table = pyarrow.csv.read_csv(path)"),
    "pyarrow, array": (_ARRAY, "table = np.column_stack([*pyarrow.csv.read_csv(path)])"),
    "polars": ("import polars", "table = polars.read_csv(path)"),
    "pandas": ("import pandas", "table = pandas.read_csv(path)"),
}


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(machine())
    results: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, embedded_server() as address, Client(address) as client:
        path = Path(folder) / "table.csv"
        _write(path)
        array_bytes = ROWS * (COLUMNS - 1) * 8
        print(
            f"{ROWS:,} rows of {COLUMNS} numbers, {path.stat().st_size / 1e6:.0f} MB; inputs {array_bytes / 1e6:.0f} MB"
        )
        for _ in range(rounds):
            for system, (imports, code) in SYSTEMS.items():
                script = f"{_BEGIN}{imports}\n{_MEASURED.format(code=code)}"
                command = [sys.executable, "-c", script, str(path), address]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[system].append(json.loads(done.stdout))
            client.delete_dataset("table")  # what a server has is not sent again
    for system, measured in results.items():
        seconds, megabytes = zip(*measured, strict=True)
        print(f"{system:<16} {spread(list(seconds))}   {max(megabytes):6.0f} MB more at most")
    ours, theirs = (min(seconds for seconds, _ in results[system]) for system in ("mlpd", "pyarrow, array"))
    print(f"mlpd takes {ours / theirs:.2f} times as long as pyarrow with the array, best of each")


def _write(path: Path) -> None:
    random = np.random.default_rng(0)
    columns = [random.normal(size=ROWS).round(6) for _ in range(COLUMNS - 1)]
    formats = ["%.6f"] * (COLUMNS - 1) + ["%d"]
    table = np.column_stack([*columns, random.integers(0, 2, ROWS)])
    np.savetxt(path, table, formats, ",", header=",".join(f"c{place}" for place in range(COLUMNS)), comments="")


if __name__ == "__main__":
    main()
