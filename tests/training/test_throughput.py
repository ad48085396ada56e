"""TFLOP/s and the part of the peak, by hand, for devices as CUDA names them."""

from types import SimpleNamespace

import pytest
import torch

from srp_exp.training import throughput
from srp_exp.training.throughput import Stopwatch, Work, peak_tflops, slowest

PEAKS = [  # name, precision, tf32, peak
    ("NVIDIA A100-SXM4-80GB", "bf16", False, 312),
    ("NVIDIA A100-SXM4-80GB", "fp32", True, 156),
    ("NVIDIA A100-PCIE-40GB", "fp32", False, 19.5),
    ("NVIDIA H100 80GB HBM3", "bf16", True, 989),
    ("NVIDIA H100 PCIe", "bf16", False, 756),
    ("NVIDIA H200", "fp16", False, 989),
    ("NVIDIA L4", "bf16", False, 121),
    ("NVIDIA L40S", "bf16", False, 362),
    ("Tesla V100-SXM2-32GB", "fp16", False, 125),
    ("NVIDIA GeForce RTX 4090", "fp32", True, 82.6),
    ("NVIDIA A10G", "bf16", False, None),
    ("Another", "bf16", False, None),
]


def test_peaks_are_those_of_the_data_sheets() -> None:
    found = [(name, precision, tf32, peak_tflops(name, precision, tf32)) for name, precision, tf32, _ in PEAKS]
    assert found == PEAKS


def test_the_work_of_resnet50_on_two_a100() -> None:
    """4.1 G multiply-adds an image: 2,500 images a second are 61.5 TFLOP/s, a tenth of 624."""
    speeds = Work.of(4_100_000_000, 312.0, 2).speeds(2500.0)
    assert speeds == {"tflops": pytest.approx(61.5), "mfu": pytest.approx(61.5 / 624)}
    assert Work.of(10**9, None, 8).speeds(1000.0) == {"tflops": pytest.approx(6.0)}


def test_the_slowest_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    watch = Stopwatch(torch.device("cpu"))
    assert watch.rate() == 0
    for images, seconds in ((8, 2.0), (0, 5.0)):  # the second isn't measured
        with watch.over(images):
            now[0] += seconds
    assert watch.rate() == 4.0
    assert slowest((4.0,)) == slowest((4.0, 0.0)) == ""
    assert slowest((1000.0, 1010.0, 700.4)) == "forward passes of 700 (process 2) to 1,010 img/s"
