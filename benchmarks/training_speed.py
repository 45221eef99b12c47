"""Training and predicting, ours and others', in turn: ``python benchmarks/training_speed.py [ROUNDS] [CASE ...]``.

Each system runs in a process of its own that stays between rounds; those that are not installed are left out. Prints a
table for each case and writes ``build/bench.json``.
"""

import importlib.util
import json
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any, Self

from cases import CASES, Case
from mlpd.core.devices.arrays import DeviceUnavailable, open_device
from running import Steal, machine, save_records

_NEEDED = {"pytorch": "torch", "pytorch compiled": "torch", "jax": "jax", "keras": "keras", "scikit-learn": "sklearn"}
_SYSTEMS = {
    "cpu": ("products", "mlpd", "pytorch", "pytorch compiled", "jax", "keras", "scikit-learn"),
    "cuda": ("products", "mlpd", "pytorch", "jax"),
}
REST_SECONDS = 0.3  # idle threads of the system before spin for a while
_HERE = Path(__file__).resolve().parent


class System:
    """A process that trains epochs when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "systems.py"), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def epoch(self, case: Case) -> dict[str, Any]:
        """Return seconds, peak memory of the host and version of one epoch."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(case.to_fields()) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def installed(device: str) -> list[str]:
    """Return the names of the systems that can be run here on a device."""
    return [name for name in _SYSTEMS[device] if importlib.util.find_spec(_NEEDED.get(name, "numpy"))]


def compare(case: Case, rounds: int) -> list[dict[str, Any]]:
    """Run all systems in turn and return a record for each."""
    with ExitStack() as stack:
        systems = [stack.enter_context(System(name)) for name in installed(case.device)]
        answers: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
        for _ in range(rounds):
            for system in systems:
                time.sleep(REST_SECONDS)
                answers[system.name].append(system.epoch(case))
    seconds = {name: [answer["seconds"] for answer in own] for name, own in answers.items()}
    return [
        {
            "case": case.name,
            "system": name,
            "median_seconds": median(own),
            "minimum_seconds": min(own),
            "products_seconds": median(seconds["products"]),
            "ratio_to_products": _ratio(own, seconds["products"]),
            "ratio_to_ours": _ratio(own, seconds["mlpd"]),
            "peak_bytes": answers[name][-1]["peak_bytes"],
            "version": answers[name][-1]["version"],
        }
        for name, own in seconds.items()
    ]


def _usable(device: str) -> bool:
    with suppress(DeviceUnavailable):
        return bool(open_device(device))
    return False


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios within each round."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def main() -> None:
    """Measure, print and write."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    devices = list(filter(_usable, _SYSTEMS))
    chosen = [CASES[name] for name in sys.argv[2:]] or [case for case in CASES.values() if case.device in devices]
    print(f"{machine()}; {rounds} rounds")
    records = []
    for case in chosen:
        with Steal() as steal:
            own = compare(case, rounds)
        records += own
        shape = "-".join(map(str, case.layer_sizes))
        print(f"\n{case.name}: {shape}, {case.step_count} {case.unit}; {steal.share:.1%} of the time stolen")
        print(f"  {'system':<18}{'median s':>9}{'minimum':>9}{'/ products':>11}{'/ ours':>8}{'peak MB':>9}  version")
        for record in own:
            print(
                f"  {record['system']:<18}{record['median_seconds']:>9.3f}{record['minimum_seconds']:>9.3f}"
                f"{record['ratio_to_products']:>11.2f}{record['ratio_to_ours']:>8.2f}"
                f"{record['peak_bytes'] / 1e6:>9.0f}  {record['version']}"
            )
    save_records(records)


if __name__ == "__main__":
    main()
