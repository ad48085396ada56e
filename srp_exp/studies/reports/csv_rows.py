"""A study as plain values, in full precision and the unit of results.json: its entries, comparisons and runs.

The last value of each says why they may not be comparable (StudyResults.warnings); a comment would break a CSV.
"""

from collections.abc import Sequence
from typing import Any

from srp_exp.config.visible import visible_cell
from srp_exp.runs.folder.store import Run
from srp_exp.studies.levels import ALPHA
from srp_exp.studies.measured import Measured, describe
from srp_exp.studies.reports.tables import cell_name, parameters, published, summary
from srp_exp.studies.results import StudyResults, metrics
from srp_exp.studies.statistics import Mean
from srp_exp.studies.verdict import Verdict

Values = list[dict[str, Any]]


def entry_values(results: StudyResults) -> Values:
    """Every entry: its statistics over the seeds, and what is published."""
    warnings = "; ".join(results.warnings)
    lines = []
    for entry in results.entries:
        values, numbers = summary(entry), published(results, entry)
        lines.append(
            {
                **entry.place,
                "metric": results.study["metric"],
                "mean": values and float(values.value),
                "sd": None if values is None or values.sd is None else float(values.sd),
                "n": len(entry.values),
                "planned": len(entry.runs),
                **{name: value for name, value in _mean(values).items() if name in ("low", "high")},
                "parameters": parameters(entry).replace(",", ""),
                "published": "; ".join(str(number["value"]) for number in numbers),
                "source": "; ".join(number["source"] for number in numbers),
                "warnings": warnings,
            }
        )
    return lines


def comparison_values(
    measured: Sequence[Measured], verdicts: Sequence[Verdict], marks: str = "", warnings: str = ""
) -> Values:
    """Every statement with its verdict, and every cell of it; "all" is the mean of the cells.

    low, high: at `level`; of a cell alone 95 %.
    """
    lines = []
    for of_statement, verdict in zip(measured, verdicts, strict=True):
        statement = of_statement.statement
        fixed = {
            "statement": describe(of_statement),
            "method": statement.method,
            "baseline": statement.baseline,
            "beyond": " - ".join(statement.beyond),
            "metric": statement.metric,
            "expect": statement.expect.value,
            "role": statement.role.value,
            "smallest_effect": statement.smallest,
        }
        levels = {"shown_at": of_statement.levels.support, "refuted_at": of_statement.levels.refute}
        tests = {"p": of_statement.p, "p_sign_flips": of_statement.p_flips, "level": verdict.level, **levels}
        outcome = {"verdict": verdict.outcome.of_statement, "preliminary": verdict.preliminary, "why": verdict.why}
        decided = {**tests, **outcome, "marks": marks, "warnings": warnings}
        together = "all" if of_statement.parts else cell_name(*of_statement.cells)
        lines.append({**fixed, "cell": together, **_mean(of_statement.mean, verdict.level), **decided})
        for cell, alone in of_statement.parts.items():
            lines.append({**fixed, "cell": cell_name(cell), **_mean(alone), **dict.fromkeys(decided)})
    return lines


def run_values(results: StudyResults) -> Values:
    """Every planned run: its state, the metrics of the test split, and where it comes from."""
    runs = [run for entry in results.entries for run in entry.runs.values()]
    measured = [name for run in runs if run.is_finished for name in run.results["test"]]
    columns = dict.fromkeys([*metrics(results.study), *measured])
    return [
        {
            **entry.place,
            "seed": seed,
            "state": run.state.value,
            **{metric: run.value(metric) if run.is_finished else None for metric in columns},
            **_origin(run),
            "folder": str(run.folder),
            "failure": run.failure,
            "warnings": "; ".join(results.warnings),
        }
        for entry in results.entries
        for seed, run in entry.runs.items()
    ]


def csv(values: Values) -> str:
    import pandas as pd

    frame = pd.DataFrame([{visible_cell(name): _cell(value) for name, value in line.items()} for line in values])
    return str(frame.astype({name: "Int64" for name in ("pairs",) if name in frame}).to_csv(index=False))


def _cell(value: Any) -> Any:
    return visible_cell(value) if isinstance(value, str) else value


def _mean(mean: Mean | None, level: float = ALPHA) -> dict[str, Any]:
    low, high = (mean and mean.bounds(level)) or (None, None)
    return {"pairs": mean.n if mean else 0, "difference": mean and float(mean.value), "low": low, "high": high}


def _origin(run: Run) -> dict[str, Any]:
    if not run.is_finished:
        return dict.fromkeys(("parameters", "training_seconds", "commit", "torch", "device"))
    return {
        **{name: run.results.get(name) for name in ("parameters", "training_seconds")},
        "commit": run.commit,
        "torch": run.provenance["packages"].get("torch"),
        "device": run.provenance["device"],
    }
