"""What the digest of a large folder costs at a run's start, beside the start itself, once the index is kept.

    python scripts/bench_digest.py [--images 1281167] [--classes 1000] [--rounds 5]

A folder of classes is laid out, of small files that are never decoded. Each start is a process of its own, as that of a
run: imports, the set opened from its index, the digest of what it reads. Given is the median with its quartiles.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

START = """
import json, sys, time
start = time.perf_counter()
from srp_exp.config.register import register
from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.runs.folder.digests import digests_of
from srp_exp.datasets.sets.imagenet import ImageNet
from srp_exp.runs.build import build_data  # what a run imports besides
opened = ImageNet(sys.argv[1], sys.argv[2], "stop", None, FileAugmentation(), verify="warn", vet="none")
ready = time.perf_counter()
digests = digests_of(opened)
end = time.perf_counter()
print(json.dumps({"start": end - start, "digest": end - ready, "images": len(opened.train), "digests": digests}))
"""


def lay_out(home: Path, images: int, classes: int) -> None:
    """train/ and val/ of ImageNet's form, `images` and a 25th of it; every file has some bytes of its own."""
    for part, count in (("train", images), ("val", max(classes, images // 25))):
        for label in range(classes):
            folder = home / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(label, count, classes):
                place = os.open(folder / f"{number:08d}.JPEG", os.O_CREAT | os.O_WRONLY)
                os.write(place, b"%d" % number)
                os.close(place)


def started(home: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-c", START, str(home), str(cache)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home, cache = Path(temporary) / "imagenet", Path(temporary) / "cache"
        lay_out(home, arguments.images, arguments.classes)
        first = started(home, cache)
        found = [started(home, cache) for _ in range(arguments.rounds)]
        assert all(start["digests"] == first["digests"] for start in found)
        shares = [start["digest"] / start["start"] for start in found]
        low, median, high = statistics.quantiles(shares, n=4)
        seconds = [statistics.median(start[name] for start in found) for name in ("digest", "start")]
        print(
            f"{first['images']:,} training images: the first start takes {first['start']:.1f} s, the index being made"
        )
        print(
            f"digest {seconds[0]:.3f} s of a start of {seconds[1]:.2f} s: {median:.2%} ({low:.2%} - {high:.2%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
