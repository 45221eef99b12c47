"""What the repository promises about itself."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from contextlib import chdir
from email.parser import Parser
from pathlib import Path

import pytest
from mlpd.client.settings import SETTINGS

from .command_line import run
from .conftest import ENVIRONMENT, ROOT, SOURCE_ROOTS, Server


@pytest.mark.parametrize("tool", ["tools/generate_spec.py", "tools/generate_proto.py"])
def test_what_is_generated_is_fresh(tool):
    done = subprocess.run(
        [sys.executable, tool, "--check"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_house_shows_the_rooms_that_there_are():
    text = (ROOT / "docs" / "architecture.md").read_text()
    houses = [ROOT / name / "mlpd" / name for name in ("core", "server", "client")]
    rooms = [path.parent.name for house in houses[:2] for path in house.glob("*/__init__.py")]
    assert [room for room in rooms if f"`{room}/`" not in text] == []
    named = re.findall(r"`([a-z_]+/[a-z_]+)[`.]", text)
    assert len(named) > 20
    known = [path / f"{name}.py" for name in named for house in houses for path in (house, house.parent)]
    assert set(named) == {f"{path.parent.name}/{path.stem}" for path in known if path.exists()}


def _mlpd(line, server, folder):
    """Run a command line that a document prints, in a folder."""
    assert line.startswith("mlpd ")
    with chdir(folder):
        done = run(*shlex.split(line)[1:], server=server)
    assert done.returncode == 0, line + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the examples' own: other tests may have taken their names."""
    with Server(tmp_path_factory.mktemp("examples") / "data") as running:
        yield running


def test_the_examples_in_the_readme_run_as_printed(server, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace("127.0.0.1:6573", server.address)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracy, classes = done.stdout.splitlines()
    assert float(accuracy) >= 0.96
    predicted, true = classes.split("] [")
    assert predicted.strip("[") == true.strip("]")
    (commands,) = re.findall(r"```\n(mlpd datasets add .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for line in commands.replace("\\\n", "").splitlines():
        _mlpd(line, server, tmp_path)
    assert len((tmp_path / "classes.csv").read_text().splitlines()) == 451


def test_the_two_commands_for_a_table_run_as_printed(server):
    (commands,) = re.findall(r"```\n(mlpd train examples/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    trained, predicted = (_mlpd(line, server, ROOT) for line in commands.splitlines())
    share = re.search(r"([\d.]+)% of (\d+) rows of titanic-test are right", trained)
    assert share
    assert float(share[1]) > 70
    assert int(share[2]) == 158
    assert re.search(r"true . predicted +no +yes", trained)
    for line in ("settings by the data", "left out: name", "values are missing: age", "mlpd predict titanic"):
        assert line in trained
    classes = re.findall(r"^ +\d  (yes|no) +0\.\d{4}$", predicted, re.MULTILINE)
    assert len(classes) == 10
    assert set(classes) == {"yes", "no"}


def test_figures_in_the_readme_are_those_of_the_newest_benchmark():
    promises = re.findall(
        r"^- \*\*(?:Training is fast|The service costs).*?(?=\n- |\n\n)",
        (ROOT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    figures = set(re.findall(r"\d+\.\d+", " ".join(promises)))
    assert len(promises) == 2
    assert len(figures) > 3
    measured = set(re.findall(r"\d+\.\d+", (ROOT / "docs" / "performance.md").read_text()))
    assert figures - measured == set()


def test_the_examples_in_the_training_guide_run_as_printed(server, tmp_path):
    text = (ROOT / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace("127.0.0.1:6573", server.address)
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[0]) > 0.4
    (settings,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "run.toml").write_text(settings)
    trained = _mlpd("mlpd train --config run.toml --wait --json", server, tmp_path)
    assert json.loads(trained)["test_accuracy"] > 0.95
    commands = re.findall(r"^mlpd datasets add .*$", text, re.MULTILINE)
    for table, line in zip(re.findall(r"```csv\n(.*?)```", text, re.DOTALL), commands, strict=True):
        (tmp_path / line.split()[4]).write_text(table)
        _mlpd(line, server, tmp_path)


def test_the_training_guide_names_every_setting():
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "training.md").read_text()))
    assert SETTINGS.keys() - named == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_four_source_roots_and_nothing_else(wheel):
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == {
        str(path.relative_to(root))
        for root in map(Path, SOURCE_ROOTS)
        for path in (root / "mlpd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "mlpd/__init__.py" not in packaged  # mlpd is a namespace package
    assert {f"mlpd/{portion}/py.typed" for portion in ("core", "server", "client", "v1")} <= packaged


def test_the_base_install_pulls_no_server_dependency(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist", [])
    base = {re.split(r"[<>=]", line)[0] for line in required if "extra ==" not in line}
    assert base == {"googleapis-common-protos", "grpcio", "numpy", "protobuf", "rich", "safetensors", "typer"}


def test_no_module_is_over_four_hundred_lines():
    modules = [
        path
        for folder in ("core", "server", "client", "tests", "tools", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert {str(path): n for path in modules if (n := len(path.read_text().splitlines())) > 400} == {}
