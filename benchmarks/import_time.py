"""How long ``import mlpd.client`` takes in a fresh process, beside what it can't do without.

Usage: python benchmarks/import_time.py [ROUNDS]
"""

import subprocess
import sys
import time

from running import machine, spread

CASES = {"python itself": "pass", "numpy and grpc": "import numpy, grpc", "mlpd.client": "import mlpd.client"}


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(machine())
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, code in CASES.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[case].append(time.perf_counter() - started)
    for case, times in seconds.items():
        print(f"{case:<16} {spread(times)}")


if __name__ == "__main__":
    main()
