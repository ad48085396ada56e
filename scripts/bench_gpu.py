"""The figures of a GPU for docs/benchmarks.md, as Markdown: what SRP costs, the pipelines, a peer, and nccl.

    python scripts/bench_gpu.py [--rounds 40] [--only cost,memory,files,peer,nccl] [--peer /elsewhere/train.py] [--tiny]

Each part is a process of its own, which has the GPU alone; one that fails is named, and the others go on. A ratio is
taken within a round, in which the variants take turns; its median over the rounds is given with the quartiles. --tiny
tries it out on a CPU, in a minute or two: its figures mean nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from srp_exp.runs.device import build_device
from srp_exp.runs.folder.provenance import device_name

SCRIPTS = Path(__file__).parent
CIFAR = ["dataset.num_classes=10", "dataset.image_size=[32,32]", "recipe.batch_size=128"]
IMAGENET = ["dataset.num_classes=1000", "dataset.image_size=[224,224]", "recipe.batch_size=128"]
NETWORKS = {
    "SE-ResNet-20, 128 x 32 x 32": ["backbone=resnet20", "attention=se", *CIFAR],
    "SE-PreResNet-110, 128 x 32 x 32": ["backbone=preresnet110", "attention=se", *CIFAR],
    "seresnet50, 128 x 224 x 224": ["backbone=seresnet50", *IMAGENET],
}
TINY = ["dataset.image_size=[32,32]", "recipe.batch_size=4"]
SPEED = ["precision=bf16", "channels_last=true", "tf32=true"]


def run(*command: str) -> str:
    """What a command prints. Raises RuntimeError, with its last line, where it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1])
    return done.stdout


def cost(arguments: argparse.Namespace) -> None:
    """Time and memory of a training step with SRP over the same with GAP, eager and compiled."""
    print("| network, batch | | GAP, ms | SRP / GAP | GAP again / GAP | memory, MiB | SRP / GAP |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, overrides in NETWORKS.items():
        for compiled in ("false", "true"):
            with tempfile.TemporaryDirectory() as folder:
                command = ["mode=cost", "dataset=synthetic", "dataset.train_size=128", "dataset.test_size=16"]
                command += [*overrides, *SPEED, "srp=scheduled", "cost.srp=[scheduled]", f"compile={compiled}"]
                command += [f"cost.rounds={arguments.rounds}", f"device={arguments.device}", f"output_dir={folder}"]
                run("-m", "srp_exp", *command, *(TINY if arguments.tiny else []))
                (file,) = Path(folder).glob("reports/cost/*.json")
                costs = json.loads(file.read_text())["costs"]
            gap, again, srp = (costs[key] for key in ("gap", "gap again", "scheduled"))
            print(
                f"| {name} | {'compiled' if compiled == 'true' else 'eager'} | {1e3 * gap['train_seconds']:.2f} "
                f"| {_quartiles(srp['train_ratio'])} | {_quartiles(again['train_ratio'])} "
                f"| {gap['memory_mib']:,.0f} | {srp['memory_ratio']:.3f} |",
                flush=True,
            )


def _quartiles(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} - {ratio['high']:.3f})"


def memory(arguments: argparse.Namespace) -> None:
    """The pipeline in memory beside one batch kept there, plain and with RandAugment."""
    print("| augmentation | printed by scripts/bench_pipeline.py |\n|---|---|")
    for name, own in (("crop and flip", []), ("and RandAugment", ["dataset.augmentation.rand_augment=9"])):
        rounds = ["--rounds", "2", "--steps", "2"] if arguments.tiny else ["--rounds", "15", "--steps", "50"]
        printed = run(str(SCRIPTS / "bench_pipeline.py"), *rounds, "--device", arguments.device, *SPEED, *own)
        print(f"| {name} | {'; '.join(printed.strip().splitlines()[1:])} |", flush=True)


def files(arguments: argparse.Namespace) -> None:
    """Reading pictures: the CPUs of this machine."""
    sizes = ["--images", "60", "--rounds", "2", "--reads", "60"] if arguments.tiny else ["--images", "2000"]
    print(run(str(SCRIPTS / "bench_input.py"), *sizes).strip())


def peer(arguments: argparse.Namespace) -> None:
    """Training from JPEGs beside timm's train.py."""
    if arguments.peer is None:
        print("left out: give --peer, the train.py of huggingface/pytorch-image-models")
        return
    own = ["--peer", str(arguments.peer), "--device", arguments.device.partition(":")[0], "--images", "20000"]
    print(run(str(SCRIPTS / "bench_peer.py"), *own, "--batch", "128", "--workers", "8").strip())


def nccl(arguments: argparse.Namespace) -> None:
    """What DistributedDataParallel costs where there is nobody to wait for: one process, by nccl (gloo on a CPU)."""
    import timm
    from torch import distributed
    from torch.nn.functional import cross_entropy

    from srp_exp.training.processes.exchange import Exchange

    device = torch.device(arguments.device)
    with tempfile.NamedTemporaryFile() as file:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{file.name}", rank=0, world_size=1)
        side, batch = (32, 4) if arguments.tiny else (224, 128)
        images, labels = torch.randn(batch, 3, side, side, device=device), torch.zeros(batch, device=device).long()
        models = {name: timm.create_model("seresnet50").to(device) for name in ("alone", "DDP", "DDP, bf16 gradients")}
        networks = {
            "alone": models["alone"],
            "DDP": Exchange().parallel(models["DDP"], device),
            "DDP, bf16 gradients": Exchange(bf16_gradients=True).parallel(models["DDP, bf16 gradients"], device),
        }
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for number in range(3 + (2 if arguments.tiny else arguments.rounds)):
            for name in list(networks)[:: 1 if number % 2 else -1]:
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16):
                    loss = cross_entropy(networks[name](images), labels)
                loss.backward()
                models[name].zero_grad()
                float(loss)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[name].append(time.perf_counter() - start)
        distributed.destroy_process_group()
    print(f"| seresnet50, {batch} x {side} x {side}, {backend} | ms | over alone |\n|---|---:|---:|")
    for name, values in seconds.items():
        ratios = [value / own for value, own in zip(values[3:], seconds["alone"][3:], strict=True)]
        print(f"| {name} | {1e3 * statistics.median(values[3:]):.2f} | {statistics.median(ratios):.3f} |")


PARTS = {"cost": cost, "memory": memory, "files": files, "peer": peer, "nccl": nccl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, of " + ", ".join(PARTS))
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", help="internal")
    parser.add_argument("--part", choices=PARTS, help="internal: measure this one here")
    arguments = parser.parse_args()
    if arguments.part:
        PARTS[arguments.part](arguments)
        return
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only={','.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    if arguments.tiny:
        arguments.rounds = 2
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --tiny tries it out on a CPU")
    device = build_device("cpu" if arguments.tiny else "cuda")
    print(f"## On {device_name(device)}\n\n    python scripts/bench_gpu.py {' '.join(sys.argv[1:])}\n")
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {datetime.now(UTC):%Y-%m-%d}; bf16, channels_last.")
    own = ["--device", str(device), "--rounds", str(arguments.rounds), *(["--tiny"] if arguments.tiny else [])]
    own += ["--peer", str(arguments.peer.resolve())] if arguments.peer else []
    failed = []
    for part in wanted:
        print(f"\n### {PARTS[part].__doc__}\n", flush=True)
        try:
            print(run(__file__, "--part", part, *own).strip(), flush=True)
        except RuntimeError as error:
            failed.append(part)
            print(f"failed: {error}", flush=True)
    if failed:
        sys.exit(f"bench_gpu: {', '.join(failed)} failed")


if __name__ == "__main__":
    main()
