"""How fast a training is: its TFLOP/s, MFU, the part of its GPUs' peak, and which process is slow."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_PEAKS = {
    "B200": (2250.0, 1125.0, 75.0),
    "GH200": (989.0, 494.0, 67.0),
    "H200": (989.0, 494.0, 67.0),
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100": (989.0, 494.0, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "L40S": (362.0, 183.0, 91.6),
    "L4": (121.0, 60.0, 30.3),
    "A40": (149.7, 74.8, 37.4),
    "A6000": (154.8, 77.4, 38.7),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
    "V100": (125.0, 15.7, 15.7),
    "T4": (65.0, 8.1, 8.1),
}
"""Dense TFLOP/s of NVIDIA's data sheets in bf16 and fp16, in TF32, and in fp32, by the name of the device."""


def peak_tflops(device_name: str, precision: str, tf32: bool) -> float | None:
    """Of a device as CUDA names it, such as "NVIDIA A100-SXM4-80GB"; None where its data sheet isn't known here."""
    words = set(re.split(r"[\s-]+", device_name))
    known = [peaks for name, peaks in _PEAKS.items() if words.issuperset(name.split())]
    if not known:
        return None
    half, tf, single = known[0]
    return single if precision == "fp32" and not tf32 else tf if precision == "fp32" else half


@dataclass(frozen=True)
class Work:
    """flops: of a training step, for one image. peak: TFLOP/s of all devices together; None where it isn't known."""

    flops: float
    peak: float | None

    @classmethod
    def of(cls, multiply_adds: int, peak: float | None, processes: int) -> "Work":
        """A forward pass has two operations for each multiply-add, and the backward pass twice as many as it.

        What activation checkpointing computes again doesn't count.
        """
        return cls(6.0 * multiply_adds, None if peak is None else peak * processes)

    def speeds(self, images_per_second: float) -> dict[str, float]:
        """tflops, and mfu where the peak is known."""
        tflops = images_per_second * self.flops / 1e12
        return {"tflops": tflops} | ({} if self.peak is None else {"mfu": tflops / self.peak})


class Stopwatch:
    """Images per second of what runs inside `over`, such as a forward pass, which waits for no other process."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._images = device, 0
        self._seconds = 0.0
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None

    @contextmanager
    def over(self, images: int) -> Iterator[None]:
        """Measure, where there are images. Nothing waits for the device."""
        if not images:
            yield
            return
        start = time.perf_counter()
        if self._device.type == "cuda":
            self._events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._events[0].record()
        yield
        if self._events is not None:
            self._events[1].record()
        self._seconds, self._images = time.perf_counter() - start, images

    def rate(self) -> float:
        """Of what was measured last; 0 where that isn't known yet."""
        if self._events is not None:
            self._seconds = self._events[0].elapsed_time(self._events[1]) / 1e3 if self._events[1].query() else 0.0
        return self._images / self._seconds if self._seconds else 0.0


def slowest(rates: tuple[float, ...]) -> str:
    """How far the rates of the processes are apart, and which is the lowest; "" for one, or where one isn't known."""
    if len(rates) == 1 or not all(rates):
        return ""
    return f"forward passes of {min(rates):,.0f} (process {rates.index(min(rates))}) to {max(rates):,.0f} img/s"
