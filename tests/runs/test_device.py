"""Which device a run takes, and what it notes of how torch uses it; CUDA is made up where there is none."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from srp_exp.errors import UserError
from srp_exp.runs.device import build_device, choose_kernels, slow_precision
from srp_exp.runs.folder import provenance as origin
from srp_exp.runs.folder.layout import differences, read_starts
from srp_exp.training.processes.distributed import connected


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that became the current one, on a machine that shows four."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch, "zeros", lambda size, device: torch.ones(1) - 1)
    return devices


def task(monkeypatch: pytest.MonkeyPatch, launcher: str, rank: int, local_rank: int, size: int) -> None:
    names = {
        "torchrun": ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
        "slurm": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),
    }
    for name, value in zip(names[launcher], (rank, local_rank, size), strict=True):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("name", "taken"), [("cuda:1", "cuda:1"), ("cuda", "cuda:0"), ("auto", "cuda:0")])
def test_the_device_becomes_the_current_one_of_a_single_process(
    current: list[torch.device], name: str, taken: str
) -> None:
    assert build_device(name) == torch.device(taken)
    assert current == [torch.device(taken)]


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_each_process_takes_the_device_of_its_number(
    current: list[torch.device], monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    task(monkeypatch, launcher, rank=7, local_rank=3, size=8)
    assert build_device("cuda") == torch.device("cuda:3")
    assert current == [torch.device("cuda:3")]


def test_a_task_takes_the_only_device_that_slurm_shows_it(
    current: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    task(monkeypatch, "slurm", rank=2, local_rank=2, size=4)
    assert build_device("cuda") == torch.device("cuda:0")


@pytest.mark.parametrize(("launcher", "devices"), [("torchrun", 1), ("slurm", 2)])
def test_fewer_devices_than_processes_are_one_line(
    current: list[torch.device], monkeypatch: pytest.MonkeyPatch, launcher: str, devices: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    task(monkeypatch, launcher, rank=2, local_rank=2, size=4)
    with pytest.raises(UserError, match=f"process 2 is number 3 of its machine, where it sees {devices} CUDA devices"):
        build_device("cuda")


@pytest.mark.parametrize(("device", "expected"), [("cuda:3", ("nccl", "cuda:3")), ("cpu", ("gloo", None))])
def test_the_group_of_processes_is_told_its_device(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: tuple[str, str | None]
) -> None:
    import torch.distributed as dist

    task(monkeypatch, "torchrun", rank=3, local_rank=3, size=4)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    told: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: told.update(backend=backend, **options))
    monkeypatch.setattr(dist, "new_group", lambda backend, **options: backend)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with connected(torch.device(device)) as processes:
        assert (processes.rank, processes.size) == (3, 4)
        assert processes.group == "gloo"  # what isn't a gradient goes by the CPU, whatever the device
    backend, own = expected
    assert (told["backend"], told["device_id"]) == (backend, own and torch.device(own))


@pytest.mark.parametrize("chosen", [False, True])
def test_the_kernels_that_are_chosen_are_noted(monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        choose_kernels(OmegaConf.create({"deterministic": False, "tf32": chosen, "cudnn_benchmark": chosen}))
        noted = origin.provenance(torch.device("cpu"))
        assert (noted["tf32"], noted["cudnn_benchmark"]) == (chosen, chosen)
        assert torch.get_float32_matmul_precision() == ("high" if chosen else "highest")
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def test_the_driver_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(origin, "_driver", lambda: "580.65.06")
    assert origin.provenance(torch.device("cpu"))["driver"] == "580.65.06"


def test_every_start_of_a_run_keeps_its_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three starts, the last two under another commit: the file has all, and the log says where it changed."""
    commits = iter(["a" * 40, "b" * 40, "b" * 40])

    def provenance(device: torch.device, processes: int) -> dict[str, Any]:
        return {"commit": next(commits), "diff": "", "packages": {}, "device": "cpu", "processes": processes}

    monkeypatch.setattr(origin, "provenance", provenance)
    warned = []
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            origin.note_start(tmp_path, torch.device("cpu"), 1)
        warned.append([record.getMessage() for record in caplog.records])
    change = f"commit {'a' * 12} -> {'b' * 12}"
    assert warned == [[], [f"resumed in a different environment: {change}"], []]
    starts = read_starts(tmp_path)
    assert [start["commit"][0] for start in starts] == ["a", "b", "b"]
    assert differences(starts) == [change]
    assert json.loads((tmp_path / "provenance.json").read_text())["commit"] == "b" * 40


@pytest.mark.parametrize(
    ("precision", "has", "warned"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_a_precision_that_the_device_emulates_is_warned_of(precision, has, warned, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    for device in ("cpu", "cuda:0"):
        said = slow_precision(precision, torch.device(device))
        assert (said is not None) == warned
        assert said is None or (precision in said and "precision=fp32" in said)
