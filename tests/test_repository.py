"""What the repository promises about itself."""

import re
import subprocess
import sys
import tomllib

from .conftest import ENVIRONMENT, ROOT


def test_the_generated_modules_are_fresh():
    done = subprocess.run(
        [sys.executable, "tools/generate_proto.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_example_in_the_readme_runs_as_printed(server):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace("127.0.0.1:6573", server.address)
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    accuracy, classes = done.stdout.splitlines()
    assert float(accuracy) >= 0.96
    predicted, true = classes.split("] [")
    assert predicted.strip("[") == true.strip("]")


def test_the_base_install_pulls_no_server_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, server = (
        {re.split(r"[<>=\[]", line)[0] for line in lines}
        for lines in (project["dependencies"], project["optional-dependencies"]["server"])
    )
    assert not base & server
    assert base == {"googleapis-common-protos", "grpcio", "numpy", "protobuf", "rich", "safetensors", "typer"}


def test_no_module_is_over_four_hundred_lines():
    modules = [
        path
        for folder in ("core", "server", "client", "tests", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert {str(path): n for path in modules if (n := len(path.read_text().splitlines())) > 400} == {}
