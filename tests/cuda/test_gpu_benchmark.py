"""What `make gpu` does on a GPU, done with tiny sizes on an emulated one."""

import json
import subprocess
import sys

import pytest

from ..conftest import ROOT, WITH_ANY_DEVICE

pytestmark = pytest.mark.cuda


def test_a_quick_run_finds_all_that_is_told_of_a_gpu(cuda, tmp_path):
    pytest.importorskip("cuda_on_cpu", reason="on a real GPU, make gpu does this and more")
    out = tmp_path / "found.json"
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "--quick",
        "--parts",
        "ceilings",
        "table",
        "digests",
        "--out",
        str(out),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=WITH_ANY_DEVICE, capture_output=True, text=True, check=False, timeout=240
    )
    assert out.exists(), done.stderr
    found = json.loads(out.read_text())
    assert found["card"]["name"]
    assert found["versions"]["numpy"]
    ceilings, table, digests = (found["parts"][name] for name in ("ceilings", "table", "digests"))
    assert [ceilings["error"], table["error"], digests["error"]] == ["", "", ""]
    assert ceilings["copy"]["gb_per_second"] > 0
    assert ceilings["multiply_adds"]["tflop_per_second"] > 0
    assert ceilings["launches"]["us_per_launch"] > 0
    assert ceilings["launches"]["host_us_per_launch"] > 0
    assert ceilings["graph_nodes"]["us_per_node"] > 0
    assert ceilings["grid_barriers"]["us_per_barrier"] > 0
    for record in table["cases"]:
        ours = record["columns"]["mlpd plain"]
        assert ours["rounds"] == len(ours["ms"]) == 5
        assert 0 < ours["minimum_ms"] <= ours["median_ms"]
        assert 0 < ours["host_ms"] <= max(ours["ms"])
        for other in ("mlpd fused", "mlpd graph"):
            figures = record["columns"][other]
            assert abs(figures["loss"] - ours["loss"]) < 1e-4
        assert f"| {record['case']} | {record['steps']} | {ours['median_ms']:.2f} " in done.stdout
    assert len(digests["runs"]) == 2
    assert all(run["plain"] for run in digests["runs"].values())
    assert digests["graph_equals_fused"]
    assert digests["errors"] == {}
    assert done.returncode == 0
