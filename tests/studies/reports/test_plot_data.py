"""The points of the plots are the numbers of the runs, in panels of what may be compared."""

import statistics
from collections.abc import Mapping
from typing import Any

import pytest
from hydra.utils import instantiate
from planned_grids import entry_of

from srp_exp.runs.folder.store import State
from srp_exp.srp.schedule import Depth
from srp_exp.studies.reports.plots import Panels, mean_scale, over_epochs, over_parameters, over_scale
from srp_exp.studies.results import StudyResults


def places(panels: Panels) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {
        panel: {name: [(point.x, round(point.mean, 6)) for point in points] for name, points in series.items()}
        for panel, series in panels.items()
    }


@pytest.mark.parametrize("choice", ["fixed", "scheduled", "cosine", "stages", "ramped"])
def test_the_mean_scale_is_that_of_the_schedule(compose: Any, choice: str) -> None:
    config = compose(f"srp={choice}").srp
    arguments = {k: v for k, v in config.items() if k not in ("name", "share", "regions", "placement", "ramp_until")}
    schedule = instantiate(arguments)
    scales = [schedule(Depth(index, 9, index // 3, 3)) for index in range(9)]
    assert mean_scale(config) == pytest.approx(statistics.mean(scales), rel=1e-12)


def test_the_mean_scale_of_others(compose: Any) -> None:
    assert mean_scale(compose("srp=gap").srp) == 1.0
    assert mean_scale({"name": "mine", "_target_": "my.Schedule", "strength": 3}) is None


def test_schedules_are_methods_by_name_over_their_mean_scale(make_results: Any) -> None:
    def last(value: float) -> Mapping[str, Any]:
        return {"name": "scheduled", "first": 1.0, "last": value}

    results = make_results(
        {(name, ()): {0: top1} for name, top1 in [("b", 0.93), ("a", 0.92), ("half", 0.95), ("gap", 0.90)]},
        srp={"a": last(0.2), "b": last(0.6), "half": {"name": "fixed", "scale": 0.5}},
        methods={
            "a": ["srp=scheduled", "srp.last=0.2"], "b": ["srp=scheduled", "srp.last=0.6"],
            "half": ["srp=fixed"], "gap": ["srp=gap"],
        },
    )  # fmt: skip
    assert places(over_scale(results)) == {
        "": {"a": [(0.6, 0.92)], "b": [(0.8, 0.93)], "fixed": [(0.5, 0.95)], "gap": [(1.0, 0.9)]}
    }


def test_what_differs_besides_the_scale_is_another_panel_or_series(make_results: Any) -> None:
    def cell(mixing: str, share: str) -> tuple[tuple[str, str], ...]:
        return ("mixing", mixing), ("srp.share", share)

    results = make_results(
        {
            (method, cell(mixing, share)): {0: 0.9}
            for mixing in ("none", "mixup")
            for share in ("batch", "sample")
            for method in ("fixed", "scheduled")
        }
    )
    panels = over_scale(results)
    assert list(panels) == ["mixing=none", "mixing=mixup"]
    assert list(panels["mixing=none"]) == [
        "fixed, srp.share=batch", "scheduled, srp.share=batch", "fixed, srp.share=sample", "scheduled, srp.share=sample"
    ]  # fmt: skip


def test_one_scale_beside_the_baseline_is_no_plot(make_results: Any) -> None:
    results = make_results({("fixed", ()): {0: 0.9, 1: 0.91}, ("gap", ()): {0: 0.9, 1: 0.9}})
    assert over_scale(results) == {}
    assert over_parameters(results) == {}


def test_parameters_have_a_series_for_each_method(full_study: StudyResults) -> None:
    panels = over_parameters(full_study)
    assert places(panels) == {
        "": {
            "gap": [(0.271807, 0.972), (0.86, 0.98)],
            "fixed": [(0.271807, 0.983), (0.86, 0.986667)],
            "scheduled": [(0.271807, 0.986), (0.86, 0.9905)],
        }
    }
    point = panels[""]["gap"][0]
    assert (point.label, round(point.low, 4), round(point.high, 4)) == ("resnet20", 0.9695, 0.9745)


def test_methods_that_name_a_backbone_are_points_of_a_series(make_results: Any) -> None:
    places_ = [("small", "resnet20", "fixed"), ("large", "resnet56", "fixed"), ("plain", "resnet56", "gap")]
    results = make_results(
        {(name, ()): {0: 0.9} for name, _, _ in places_},
        methods={name: [f"backbone={backbone}", f"srp={srp}"] for name, backbone, srp in places_},
    )
    for number, (entry, count) in enumerate(zip(results.entries, (1e6, 2e6, 2e6), strict=True)):
        entry.runs[0].results.update(parameters=count, test={"top1": number})
    series = places(over_parameters(results))[""]
    assert series == {"srp=fixed": [(1.0, 0.9), (2.0, 0.9)], "srp=gap": [(2.0, 0.9)]}


def test_data_sets_do_not_share_a_panel(make_results: Any) -> None:
    results = make_results(
        {
            ("gap", (("dataset", dataset), ("backbone", backbone))): {0: 0.9}
            for dataset in ("cifar10", "cifar100")
            for backbone in ("resnet20", "resnet56")
        },
        parameters={"resnet56": 860_000},
    )
    assert list(over_parameters(results)) == ["dataset=cifar10", "dataset=cifar100"]


def test_curves_are_mean_and_range_over_the_seeds(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: 0.9, 1: 0.8, 2: State.running}})
    metric, panels = over_epochs(results)
    assert metric == "test/top1"
    points = panels[""]["gap"]
    assert [point.x for point in points] == [1, 2, 3]
    assert [(round(p.low, 6), round(p.mean, 6), round(p.high, 6)) for p in points] == [
        (0.6, 0.65, 0.7), (0.7, 0.75, 0.8), (0.8, 0.85, 0.9),
    ]  # fmt: skip


def test_curves_leave_out_epochs_that_a_seed_did_not_measure(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: 0.9, 1: 0.8}})
    del entry_of(results, "gap").runs[1].history[1]["test/top1"]
    assert [point.x for point in over_epochs(results)[1][""]["gap"]] == [1, 3]


def test_curves_fall_back_to_what_is_logged(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: 0.9}}, metric="descriptors.effective_rank")
    assert over_epochs(results)[0] == "test/top1"
    for epoch in entry_of(results, "gap").runs[0].history:
        del epoch["test/top1"]
    assert over_epochs(results)[0] == "train/top1"


def test_nothing_finished_is_no_plot(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: State.new}, ("fixed", ()): {0: State.running}})
    assert (over_scale(results), over_parameters(results), over_epochs(results)) == ({}, {}, ("", {}))
