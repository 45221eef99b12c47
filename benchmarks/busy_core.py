"""How much slower an epoch gets while another process keeps one core busy: ``python benchmarks/busy_core.py [ROUNDS]``.

Some systems in turn, each round once on a quiet machine and once on a busy one.
"""

import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median

from cases import CASES
from running import machine, save_records
from training_speed import REST_SECONDS, System, installed

_CASE = CASES["mnist 128 sgd"]
_SYSTEMS = ("products", "mlpd", "pytorch", "jax")


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{machine()}; {rounds} rounds; {_CASE.name}")
    with ExitStack() as stack:
        systems = [stack.enter_context(System(name)) for name in installed(_CASE.device) if name in _SYSTEMS]
        quiet: dict[str, list[float]] = {system.name: [] for system in systems}
        busy: dict[str, list[float]] = {system.name: [] for system in systems}
        for _ in range(rounds):
            for system in systems:
                time.sleep(REST_SECONDS)
                quiet[system.name].append(system.epoch(_CASE)["seconds"])
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for system in systems:
                time.sleep(REST_SECONDS)
                busy[system.name].append(system.epoch(_CASE)["seconds"])
            other.kill()
            other.wait()
    print(f"  {'system':<18}{'quiet s':>9}{'busy s':>9}{'minimum':>9}{'slowdown':>10}")
    for name, seconds in busy.items():
        slowdown = median(b / q for b, q in zip(seconds, quiet[name], strict=True))
        times = f"{median(quiet[name]):>9.3f}{median(seconds):>9.3f}{min(seconds):>9.3f}"
        print(f"  {name:<18}{times}{slowdown:>10.2f}")
    save_records(
        [
            {
                "case": f"{_CASE.name}, one core busy",
                "system": name,
                "median_seconds": median(seconds),
                "minimum_seconds": min(seconds),
                "products_seconds": median(busy["products"]),
                "ratio_to_products": median(s / p for s, p in zip(seconds, busy["products"], strict=True)),
                "ratio_to_ours": median(s / o for s, o in zip(seconds, busy["mlpd"], strict=True)),
            }
            for name, seconds in busy.items()
        ]
    )


if __name__ == "__main__":
    main()
