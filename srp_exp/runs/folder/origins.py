"""Where finished runs come from, what they took, and why they may not be compared."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from srp_exp.runs.folder.store import Run

PACKAGES = ("torch", "timm", "torchvision")
"""Packages whose versions a report names."""

_SAME_DATA = frozenset({"root", "cache_dir", "download", "augmentation", "mean", "std"})
"""Settings of a data set that don't say which data are meant."""


def counted(values: Counter[str]) -> str:
    """The values with the number of their runs, the most frequent first: "2.15.0 (8 runs), 2.14.1 (1 run)"."""
    return ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in values.most_common())


def origins(runs: Iterable[Run]) -> dict[str, Counter[str]]:
    """From what finished runs come: data, code, versions, device, each with the number of its runs."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        found["data"][str(run.config["dataset"]["name"])] += 1
        found["commit"][run.commit.replace("+", " with uncommitted changes ")] += 1
        for package in PACKAGES:
            found[package][run.provenance["packages"].get(package, "unknown")] += 1
        for name in ("python", "device", "driver", "processes", "threads"):
            if run.provenance.get(name) is not None:  # a processor has no driver
                found[name][str(run.provenance[name])] += 1
    return dict(found)


def other_data(runs: Sequence[Run]) -> list[str]:
    """Where runs of one data set, with one choice of its settings, have read other pictures or labels, or may have."""
    unknown = [run.folder.name for run in runs if not run.data]
    lines = []
    if 0 < len(unknown) < len(runs):
        lines = [f"{len(unknown)} of {len(runs)} finished runs don't say what data they read, as {min(unknown)}"]
    digests: dict[str, Counter[str]] = {}
    for run in runs:
        if run.data:
            unread = {*_SAME_DATA, *({"subset_seed"} if run.config["dataset"].get("train_per_class") is None else ())}
            dataset = {name: value for name, value in run.config["dataset"].items() if name not in unread}
            found = hashlib.sha256(json.dumps(run.data, sort_keys=True).encode()).hexdigest()[:8]
            digests.setdefault(json.dumps(dataset, sort_keys=True), Counter())[found] += 1
    return lines + [
        f"runs of different data in one table: {json.loads(dataset)['name']} with the digests {counted(counts)}"
        for dataset, counts in digests.items()
        if len(counts) > 1
    ]


def confounded(method: str, of_method: Iterable[Run], baseline: str, of_baseline: Iterable[Run]) -> list[str]:
    """Where a method and its baseline come from different origins in every pair: the difference may be theirs."""
    one, other = ({n: of for n, of in origins(runs).items() if n != "data"} for runs in (of_method, of_baseline))
    return [
        f"{name} is confounded with the method in every pair: {method} {counted(one[name])}, {baseline} "
        f"{counted(other[name])}"
        for name in one
        if name in other and not one[name].keys() & other[name].keys()
    ]


def unmeasured(runs: Iterable[Run], wanted: list[str]) -> list[str]:
    lines = []
    for metric in wanted:
        missing = sum(run.value(metric) is None for run in runs)
        if missing:
            evaluator, dot, _ = metric.rpartition(".")
            remedy = f": evaluators=[{evaluator}] measures it" if dot else ""
            lines.append(f"{missing} finished run{'s have' if missing > 1 else ' has'} no {metric}{remedy}")
    return lines


def training_time(runs: Iterable[Run]) -> dict[str, str]:
    """What the finished runs took: GPU-hours, or hours of a processor's cores (processes times threads).

    "at least" where one was interrupted: results.json has the seconds of its last start.
    """
    hours: dict[str, float] = defaultdict(float)
    runs = list(runs)
    for run in runs:
        origin, on_gpu = run.provenance, run.provenance.get("cudnn") is not None
        devices = origin["processes"] * (1 if on_gpu else origin["threads"])
        hours["GPU-hours" if on_gpu else "core-hours"] += devices * run.results["training_seconds"] / 3600
    took = ", ".join(f"{count:.2f} {unit}" for unit, count in hours.items())
    interrupted = any(len(run.starts) > 1 for run in runs)
    return {"training": f"at least {took}" if interrupted else took} if took else {}
