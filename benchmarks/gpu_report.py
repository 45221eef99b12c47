"""What a measurement on a GPU found, as Markdown."""

from typing import Any

from gpu_digests import CPU
from gpu_systems import MODULES
from gpu_table import RATIOS

_TITLES = {
    "mlpd plain": "mlpd eager",
    "mlpd fused": "mlpd fused",
    "mlpd graph": "mlpd graph",
    "torch eager": "PyTorch",
    "torch compiled": "PyTorch compiled",
    "torch graph": "PyTorch CUDA graphs",
    "jax": "JAX",
    "jax highest": "JAX (float32)",
}
_RATIO_TITLES = ("graph / PyTorch CUDA graphs", "graph / JAX", "graph / JAX (float32)")
_LARGEST_LOSS_ERROR = 0.01
_OURS = ("mlpd plain", "mlpd fused", "mlpd graph")


def report(result: dict[str, Any]) -> str:
    """Return the tables of a measurement, those of its parts that were run."""
    card, parts = result["card"], result["parts"]
    told = [f"{card['name']}, driver {card.get('driver_version', card['cuda_driver'])}, {result['date']}"]
    told += [", ".join(f"{name} {number}" for name, number in result["versions"].items())]
    told += [f"{name} failed: {_last_line(part['error'])}" for name, part in parts.items() if part["error"]]
    if "ceilings" in parts:
        told += ["", *_ceilings(parts["ceilings"])]
    if "digests" in parts:
        told += ["", *_digests(parts["digests"])]
    if "tests" in parts:
        told += ["", "CUDA tests: " + ", ".join(f"{n} {word}" for word, n in parts["tests"].get("counts", {}).items())]
    if "table" in parts:
        told += ["", *_epochs(parts["table"])]
    return "\n".join(told)


def _rows(*rows: list[str]) -> list[str]:
    """Return a table; the first row are its titles."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def _ceilings(part: dict[str, Any]) -> list[str]:
    rows = [["ceiling", "figure", "median"]]
    for name, figures in part.items():
        if isinstance(figures, dict):
            rows += [[name, figure, _number(value)] for figure, value in figures.items()]
    return _rows(*rows)


def _number(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _digests(part: dict[str, Any]) -> list[str]:
    ways = ("plain", "fused", "graph", CPU)
    rows = [["run", *ways, "graph = fused", "graph = cpu"]]
    for name, run in part.get("runs", {}).items():
        alike = [_equal(run["graph"], run[other]) for other in ("fused", CPU)]
        rows.append([name, *(run[way] or "-" for way in ways), *alike])
    return [*_rows(*rows), *_reasons(part.get("errors", {}))]


def _reasons(errors: dict[str, str]) -> list[str]:
    """Return a line for each reason, with all that have it."""
    places: dict[str, list[str]] = {}
    for where, why in errors.items():
        places.setdefault(_last_line(why), []).append(where)
    return [f"not measured: {'; '.join(where)}: {why}" for why, where in places.items()]


def _last_line(text: str) -> str:
    return text.splitlines()[-1]


def _equal(one: str | None, other: str | None) -> str:
    return "-" if one is None or other is None else "yes" if one == other else "no"


def _epochs(part: dict[str, Any]) -> list[str]:
    """Return milliseconds an epoch; then what the host takes, and a step."""
    columns = [name for name in MODULES if name not in part.get("absent", {})]
    times = [["case", "steps", *(_TITLES[name] for name in columns), *_RATIO_TITLES]]
    hosts = [["case", *(f"{_TITLES[name]}, {what}" for name in _OURS for what in ("host ms", "us a step"))]]
    for record in part.get("cases", []):
        own = record["columns"]
        cells = [_time(own.get(name, {})) for name in columns]
        ratios = [f"{record['ratios'][name]:.2f}" if name in record["ratios"] else "-" for name in RATIOS]
        times.append([record["case"], str(record["steps"]), *cells, *ratios])
        figures = [own.get(name, {}).get(what) for name in _OURS for what in ("host_ms", "us_per_step")]
        hosts.append([record["case"], *("-" if value is None else f"{value:.2f}" for value in figures)])
    head = "Milliseconds an epoch, median (minimum); float32, without TF32 but where JAX takes it by default:"
    return [*_rows(*hosts), "", *_remarks(part), head, "", *_rows(*times)]


def _time(figures: dict[str, Any]) -> str:
    return f"{figures['median_ms']:.2f} ({figures['minimum_ms']:.2f})" if "median_ms" in figures else "-"


def _remarks(part: dict[str, Any]) -> list[str]:
    """Return what is missing and why, and whose loss after an epoch is not that of the others."""
    remarks, errors = [], dict(part.get("absent", {}))
    for record in part.get("cases", []):
        columns = record["columns"]
        if not columns:
            remarks.append(f"{record['case']} is left out: the budget of {part['budget_seconds']:.0f} s was used up")
        expected = next((own["loss"] for own in columns.values() if "loss" in own), 0.0)
        for name, own in columns.items():
            if "error" in own:
                errors[f"{name}, {record['case']}"] = own["error"]
            if abs(own.get("loss", expected) - expected) > _LARGEST_LOSS_ERROR * expected:
                remarks.append(f"{record['case']}, {name}: loss {own['loss']:.4f} after an epoch, not {expected:.4f}")
    remarks += _reasons(errors)
    return [*remarks, ""] if remarks else []
