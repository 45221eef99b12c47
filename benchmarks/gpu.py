"""Everything we claim of a GPU, measured on the one here: ``make gpu``, or ``python benchmarks/gpu.py --help``.

It finds what the card can do at most, times epochs of ours beside PyTorch's and JAX's, compares the digests of small
runs that are launched in different ways, and runs the CUDA tests. Every part has its own processes and its own time;
one that fails is recorded, and the next begins. The figures are in one JSON file, written after every step.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cupy
from gpu_children import Child, ChildEnded, end_group, failure
from gpu_digests import NAMES, WAYS
from gpu_report import report
from gpu_systems import KERNELS
from gpu_table import Table, cases

_ROOT = Path(__file__).resolve().parent.parent
_TOTAL_SECONDS = 460.0  # of all parts
_CEILINGS_SECONDS, _TABLE_SECONDS, _DIGESTS_SECONDS, _TESTS_SECONDS = 40.0, 240.0, 90.0, 180.0
_WAY_SECONDS = 45.0  # of the digests', so that one way can't take the time of all
# One needs a module that a machine with a GPU may lack; the other runs this.
_IGNORED = ("tests/core/test_array_api.py", "tests/cuda/test_gpu_benchmark.py")
_TESTS = ("-m", "cuda", *(f"--ignore={path}" for path in _IGNORED), "tests/cuda", "tests/core")
_LIBRARIES = ("cupy-cuda12x", "cupy-cuda13x", "numpy", "safetensors", "llvmlite", "torch", "jax", "jaxlib", "triton")
_CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit")
_LAST_LINES = 40
_QUICK_RUNS = 2  # whose digests a quick measurement compares


class Measurement:
    """One run of the parts that were chosen, and the file with what they found."""

    def __init__(self, out: Path | None, budget_seconds: float, *, quick: bool) -> None:
        self._started, self._quick, self._budget_seconds = time.monotonic(), quick, budget_seconds
        now = datetime.now(UTC)
        self.result: dict[str, Any] = {
            "date": f"{now:%Y-%m-%d}",
            "time": f"{now:%H:%M:%S} UTC",
            "quick": quick,
            "card": card(),
            "versions": versions(),
            "parts": {},
        }
        slug = re.sub(r"[^a-z0-9]+", "-", self.result["card"]["name"].lower()).strip("-")
        name = f"gpu-{now:%Y-%m-%d}-{slug}{'-quick' if quick else ''}.json"
        self.out = out or _ROOT / "benchmarks" / "results" / name
        self._save()

    def part(self, name: str) -> None:
        """Run a part; what goes wrong is recorded with it."""
        print(f"{name} ({self._seconds():.0f} s so far)", flush=True)
        started = time.monotonic()
        found: dict[str, Any] = {"error": ""}
        self.result["parts"][name] = found
        try:
            PARTS[name](self, found)
        except Exception:  # noqa: BLE001  # the other parts may still work
            found["error"] = failure()
            print(f"  failed: {found['error'].splitlines()[-1]}", flush=True)
        found["seconds"] = time.monotonic() - started
        self._save()

    def ceilings(self, found: dict[str, Any]) -> None:
        """Find what the card can do at most."""
        with Child("gpu_ceilings", *(["quick"] if self._quick else [])) as child:
            for answer in child.answers(self._left(_CEILINGS_SECONDS)):
                self._add(found, answer)

    def table(self, found: dict[str, Any]) -> None:
        """Time epochs."""

        def save(result: dict[str, Any]) -> None:
            found.update(result)
            self._save()

        Table(self._left(self._budget_seconds), save).measure(cases(quick=self._quick))

    def digests(self, found: dict[str, Any]) -> None:
        """Compare the bits of small runs."""
        names = NAMES[:_QUICK_RUNS] if self._quick else NAMES
        runs: dict[str, dict[str, str | None]] = {name: dict.fromkeys(WAYS) for name in names}
        errors: dict[str, str] = {}
        found |= {"runs": runs, "errors": errors}
        until = time.monotonic() + self._left(_DIGESTS_SECONDS)
        for way in WAYS:
            try:
                with Child("gpu_digests", way, str(len(names))) as child:
                    for answer in child.answers(min(_WAY_SECONDS, until - time.monotonic())):
                        runs[answer["run"]][way] = answer["digest"]
                        if answer["error"]:
                            errors[f"{way}, {answer['run']}"] = answer["error"]
            except (TimeoutError, ChildEnded) as error:
                errors[way] = str(error)
            print(f"  {way}: {sum(run[way] is not None for run in runs.values())} of {len(runs)} runs", flush=True)
            self._save()
        found["graph_equals_fused"] = all(run["graph"] == run["fused"] for run in runs.values())

    def tests(self, found: dict[str, Any]) -> None:
        """Run the CUDA tests, and count what they say."""
        seconds = self._left(_TESTS_SECONDS)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *_TESTS]
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # so that one that is ended has told how far it was
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_group(process)
            text, _ = process.communicate()
            found["error"] = f"the tests took longer than {seconds:.0f} s"
        finally:
            end_group(process)  # also when this is interrupted
        lines = text.splitlines()[-_LAST_LINES:]
        found["last_lines"], found["status"] = lines, process.returncode
        found["counts"] = {
            word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", lines[-1] if lines else "")
        }
        print("\n".join(f"  {line}" for line in lines[-3:]), flush=True)

    def _add(self, found: dict[str, Any], answer: dict[str, Any]) -> None:
        print(f"  {json.dumps(answer)}", flush=True)
        found.update(answer)
        self._save()

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _left(self, limit: float) -> float:
        """Return the seconds that a part may take: ``limit``, or what is left of all."""
        return max(1.0, min(limit, _TOTAL_SECONDS - self._seconds()))

    def _save(self) -> None:
        self.result["seconds"] = self._seconds()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.result, indent=1) + "\n")

    @property
    def holds(self) -> bool:
        """Whether all that we promise held: no part failed, bits are equal however work is launched, tests passed."""
        parts = self.result["parts"]
        digests, status = parts.get("digests"), parts.get("tests", {}).get("status")
        equal = not digests or (digests.get("graph_equals_fused") and not digests["errors"])
        return bool(equal) and not status and not any(part["error"] for part in parts.values())


PARTS: dict[str, Callable[[Measurement, dict[str, Any]], None]] = {
    "ceilings": Measurement.ceilings,
    "table": Measurement.table,
    "digests": Measurement.digests,
    "tests": Measurement.tests,
}


def card() -> dict[str, Any]:
    """Return the card's name, memory and clocks (MHz), the driver and CUDA, as far as they are told."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0)
    found = {
        "name": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
    }
    names = ("driver_version", *_CLOCKS)
    try:
        line = subprocess.run(
            ["nvidia-smi", "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return found
    return found | dict(zip(names, line.split(", "), strict=False))


def versions() -> dict[str, str]:
    """Return the versions of Python and of what is installed of the libraries that count."""
    found = {"python": platform.python_version(), "cores": str(len(os.sched_getaffinity(0)))}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Run the parts, print what they found as tables, and end with status 1 unless all held."""
    parser = argparse.ArgumentParser(
        description="Measure training on a GPU, beside PyTorch and JAX, and test it there."
    )
    parser.add_argument("--out", type=Path, help="JSON file to write; benchmarks/results/gpu-DATE-CARD.json by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to do; all by default")
    parser.add_argument(
        "--budget-seconds", type=float, default=_TABLE_SECONDS, help="of the epochs of ours and others; 240 by default"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    options = parser.parse_args()
    if not cupy.cuda.is_available():
        sys.exit("CuPy finds no CUDA device; check the NVIDIA driver and CUDA_VISIBLE_DEVICES")
    measurement = Measurement(options.out, options.budget_seconds, quick=options.quick)
    with tempfile.TemporaryDirectory() as kernels:  # what one process has compiled, others need not
        os.environ[KERNELS] = kernels
        for name in PARTS:
            if name in options.parts:
                measurement.part(name)
    print(f"\n{report(measurement.result)}\n{measurement.out}")
    sys.exit(0 if measurement.holds else 1)


if __name__ == "__main__":
    main()
