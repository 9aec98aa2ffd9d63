"""Photographs that do not fit in memory: what preparing, opening, holding and cropping them costs, beside torchvision.

    python benchmarks/packed.py --images 5000 --rounds 5 --batches 8 --json benchmarks/packed.json

Makes a folder of JPEG files of 80 to 500 pixels a side (kept, with --folder, for another call), and measures
- preparing it, beside torchvision's decoder on all processors: by itself, and with the shorter side brought to 256;
- opening what was prepared in a new process, listing the folder included;
- what a process that draws batches holds for itself, and what two share;
- random views a second, beside torchvision's ImageFolder and DataLoader at equal work: random resized crops, flips,
  normalisation, float batches; once with Pillow as most people have it, once with torchvision's fastest (tensors, v2).

The sides take turns, so that a busy machine slows all; each ratio is the median over rounds. Beside seconds stand
processor seconds, of which a busy machine takes less away.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, SubsetRandomSampler
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from sswp_lib.config import Data, Views
from sswp_lib.learn import packing
from sswp_lib.learn.data import ImageData, generator, load, take
from sswp_lib.learn.views import random_views

SIDES, CLASSES, QUALITY = (80, 500), 100, 90  # of the files that are made
SIDE, SIZE, BATCH = 256, 224, 256
PLAIN = Views(crop_scale=(0.2, 1.0), jitter_p=0.0, grey_p=0.0, blur_p=0.0)
CORES = len(os.sched_getaffinity(0))


def make(folder: Path, count: int) -> None:
    """Write `count` JPEG files into folder/train/<class>/, each a piece of one of some scenes of 1/f noise, which has
    the spectrum of photographs.
    """
    rng = np.random.default_rng(0)
    scenes = [_scene(rng, 1200) for _ in range(8)]
    shapes = rng.integers(SIDES[0], SIDES[1] + 1, (count, 2))
    places = rng.random((count, 2))
    for i in range(CLASSES):
        (folder / "train" / f"c{i:03d}").mkdir(parents=True, exist_ok=True)

    def write(i: int) -> None:
        scene, shape = scenes[i % len(scenes)], shapes[i]
        top, left = (places[i] * (np.array(scene.shape[:2]) - shape)).astype(int)
        piece = Image.fromarray(scene[top : top + shape[0], left : left + shape[1]])
        piece.save(folder / "train" / f"c{i % CLASSES:03d}" / f"{i:06d}.jpg", quality=QUALITY)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(write, range(count)))


def _scene(rng: np.random.Generator, size: int) -> np.ndarray:
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    frequency[0, 0] = 1
    noise = rng.normal(size=(3, size, size)) + 1.5 * rng.normal(size=(1, size, size))  # most of it is brightness
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    waves = (waves - waves.mean((1, 2), keepdims=True)) / waves.std((1, 2), keepdims=True)
    return (128 + 52 * waves).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


class Clock:
    """Seconds, and processor seconds of this process and of its children that have ended, of each side by rounds."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.processor: dict[str, list[float]] = defaultdict(list)

    def time(self, side: str, work: Callable[[], object]) -> None:
        before, started = os.times(), time.perf_counter()
        work()
        self.seconds[side].append(time.perf_counter() - started)
        self.processor[side].append(sum(os.times()[:4]) - sum(before[:4]))

    def rows(self, count: int, ours: str) -> dict[str, dict[str, float]]:
        """Return, for each side, things a second and how many times as fast as that `ours` is, by both clocks."""
        found = {}
        for side, seconds in self.seconds.items():
            clocks = (seconds, self.seconds[ours]), (self.processor[side], self.processor[ours])
            ratios = [statistics.median(a / b for a, b in zip(*clock, strict=True)) for clock in clocks]
            found[side] = {
                "a second": count / statistics.median(seconds),
                "a processor second": count / statistics.median(self.processor[side]),
                "ours": ratios[0], "ours by processor": ratios[1],
            }  # fmt: skip
        return found


def preparing(files: list[Path], rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Time every side on one part of the files after another."""
    clock, part = Clock(), len(files) // rounds
    reduce = v2.Resize(SIDE, antialias=True)

    def decoded(path: Path) -> torch.Tensor:
        return decode_image(read_file(str(path)), ImageReadMode.RGB)

    def reduced(path: Path) -> torch.Tensor:
        image = decoded(path)
        return reduce(image) if min(image.shape[1:]) > SIDE else image

    def on_all(work: Callable[[Path], object], some: list[Path]) -> None:
        with ThreadPoolExecutor(CORES) as pool:
            for _ in pool.map(lambda path: work(path) is None, some):
                pass

    for i in range(rounds):
        some = files[i * part : (i + 1) * part]
        on_all(Path.read_bytes, some)  # all find them in memory
        sides = {
            "torchvision's decoder": lambda some=some: on_all(decoded, some),
            "the same, and the shorter side at 256": lambda some=some: on_all(reduced, some),
            "prepared": lambda some=some, i=i: packing.prepared(
                Path(), [*map(str, some)], SIDE, folder / f"{i}.pack", "", lambda text: None
            ),
        }
        for name in sorted(sides, key=lambda name, i=i: (list(sides).index(name) + i) % len(sides)):
            clock.time(name, sides[name])
        (folder / f"{i}.pack").unlink()
    return clock.rows(part, "prepared")


def batches_of(loaded: ImageData, count: int, seed: int) -> Iterable[torch.Tensor]:
    """Yield batches of random views of photographs."""
    for step in range(count):
        index = torch.randint(0, len(loaded.train), (BATCH,), generator=generator(seed, "batch", step))
        g = generator(seed, "views", step)
        yield random_views(take(loaded.train, index, "cpu"), PLAIN, loaded.mean, loaded.std, g, SIZE)


def loaders(folder: Path, mean: list[float], std: list[float]) -> dict[str, ImageFolder]:
    crops = [v2.RandomResizedCrop(SIZE, PLAIN.crop_scale, antialias=True), v2.RandomHorizontalFlip()]
    to_float = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    read = lambda path: decode_image(read_file(path), ImageReadMode.RGB)  # noqa: E731
    return {
        "ImageFolder and DataLoader, Pillow": ImageFolder(
            folder / "train", v2.Compose([*crops, v2.PILToTensor(), *to_float])
        ),
        "ImageFolder and DataLoader, tensors": ImageFolder(
            folder / "train", v2.Compose([*crops, *to_float]), loader=read
        ),
    }


def viewing(data: Data, folder: Path, rounds: int, batches: int) -> dict[str, dict[str, float]]:
    """Time so many batches of each side in turn, the start of the loader's processes included."""
    clock, loaded = Clock(), load(data)
    sets = loaders(folder, loaded.mean.tolist(), loaded.std.tolist())

    def by_loader(images: ImageFolder) -> None:
        chosen = SubsetRandomSampler(torch.randint(0, len(images), (batches * BATCH,)).tolist())
        for views, _ in DataLoader(images, BATCH, sampler=chosen, num_workers=CORES, multiprocessing_context="fork"):
            assert views.shape == (BATCH, 3, SIZE, SIZE)

    def ours(seed: int) -> None:
        for views in batches_of(loaded, batches, seed):
            assert views.shape == (BATCH, 3, SIZE, SIZE)

    for i in range(rounds):
        for name, images in sets.items():
            clock.time(name, lambda images=images: by_loader(images))
        clock.time("ours", lambda i=i: ours(i))
    return clock.rows(batches * BATCH, "ours")


def opening(data: Data, results: Any) -> None:
    """Put the seconds of `load` in this process, new as it is, into `results`."""
    started = time.perf_counter(), time.process_time()
    load(data)
    results.put((time.perf_counter() - started[0], time.process_time() - started[1]))


def holding(data: Data, batches: int, results: Any, everybody: Any) -> None:
    """Draw batches; put what this process then holds for itself, and what it shares, in MiB, into `results`."""
    loaded = load(data)
    for _ in batches_of(loaded, batches, os.getpid()):
        pass
    loaded.train.pixels.view(-1)[::4096].sum()  # all pages are there now, as after an epoch
    everybody.wait()  # nobody leaves before all have looked
    found = psutil.Process().memory_full_info()
    own = found.rss - found.shared  # what is not of a file
    results.put(
        {"own": own / 2**20, "resident": found.rss / 2**20, "own and its part of the shared": found.pss / 2**20}
    )
    everybody.wait()


def in_processes(work: Callable[..., None], *arguments: Any, count: int = 1, together: bool = False) -> list[Any]:
    """Return what `count` new processes put into a queue, its last argument but for a barrier."""
    new = multiprocessing.get_context("spawn")
    results, extra = new.Queue(), [new.Barrier(count)] if together else []
    started = [new.Process(target=work, args=(*arguments, results, *extra)) for _ in range(count)]
    for process in started:
        process.start()
    found = [results.get() for _ in started]
    for process in started:
        process.join()
    return found


def measured(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    data = Data(
        name=f"folder:{folder}", root=str(folder.parent / "root"), image_size=SIZE, decode_size=SIDE, kept="photographs"
    )
    files = sorted((folder / "train").rglob("*.jpg"))
    found: dict[str, Any] = {"preparing": preparing(files, given.rounds, folder.parent)}
    images = load(data).train
    found["images"] = {"count": len(images), "GiB": images.nbytes / 2**30}
    opened = in_processes(opening, data) + in_processes(opening, data)
    found["opening"] = dict(zip(("seconds", "processor seconds"), min(opened), strict=True))
    found["holding"] = {
        f"{count} at once": in_processes(holding, data, 3, count=count, together=True) for count in (1, 2)
    }
    found["views"] = viewing(data, folder, given.rounds, given.batches)
    found["machine"] = {"processor": platform.processor(), "cores": CORES, "load": os.getloadavg()[0]}
    return found


def shown(found: dict[str, Any]) -> str:
    """Return the results as text."""
    count = found["images"]
    lines = [f"{count['count']} images, {count['GiB']:.2f} GiB; {found['machine']}"]
    for part in ("preparing", "views"):
        lines.append(f"\n{part}: a second (a processor second), and how many times as fast ours is (by processor)")
        for side, row in found[part].items():
            rate = f"{row['a second']:9.0f} ({row['a processor second']:7.0f})"
            lines.append(f"  {side:<40}{rate}   {row['ours']:5.2f} ({row['ours by processor']:.2f})")
    opening = found["opening"]
    lines.append(f"\nopened again in {opening['seconds']:.2f} s ({opening['processor seconds']:.2f} of a processor)")
    for name, each in found["holding"].items():
        held = "; ".join(", ".join(f"{kind} {mib:.0f}" for kind, mib in one.items()) for one in each)
        lines.append(f"processes, {name}, MiB: {held}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="of 256 views, for each side in a round")
    parser.add_argument("--folder", type=Path, help="made where it is not there; a temporary one if left out")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary) / "photographs").resolve()
        if not folder.is_dir():
            make(folder, given.images)
        found = measured(folder, given)
    print(shown(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
