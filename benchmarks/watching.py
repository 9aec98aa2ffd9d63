"""What watching a run costs it: a search alone, with a watcher in another process, and with one in its own.

    python benchmarks/watching.py --epochs 40 --repeats 3

The three take turns, each in a process of its own. Given are seconds of the search and the processor's seconds of its
process; of these the share that the run spends on writing for those who look on; and the processor's seconds of the
watcher by the search's seconds: the share of one core that watching takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

ARMS = ("alone", "beside", "within")
POLL = 0.2  # seconds from one look at whether a run is done to the next


def config(epochs: int):
    from sswp_lib.presets import load_config

    return load_config("quick", settings={"search.epochs": epochs})


def timed(owner: type, name: str) -> list[float]:
    """Have a method note the processor's seconds that each call takes of its thread; returns where."""
    spent, method = [], getattr(owner, name)

    def noted(*given):
        before = time.thread_time()
        try:
            return method(*given)
        finally:
            spent.append(time.thread_time() - before)

    setattr(owner, name, noted)
    return spent


def search(epochs: int, within: bool) -> dict[str, float]:
    """Do the search; return its seconds, those of the processor, and the shares of writing and of a watcher within."""
    from sswp_lib.runs import following, runs
    from sswp_lib.show import watching, widgets

    written, looked = timed(following.Trace, "step"), timed(watching.Rounds, "_visit")
    if within:
        widgets.watch(config(epochs))
    began, processor = time.monotonic(), time.process_time()
    runs.search(config(epochs), device="cpu", quiet=True)
    seconds, processor = time.monotonic() - began, time.process_time() - processor
    shares = {"writing": sum(written) / processor, "watcher": sum(looked) / seconds}
    return {"seconds": seconds, "processor": processor, **shares}


def watch(epochs: int) -> dict[str, float]:
    """Watch the search until it is done, and return the processor's seconds of that."""
    from sswp_lib.runs import runs
    from sswp_lib.show import widgets

    runs.stand(config(epochs))
    print("ready", flush=True)
    processor, widget = time.process_time(), widgets.watch(config(epochs))
    while widget.follows:
        time.sleep(POLL)
    return {"watcher": time.process_time() - processor}


def run(arm: str, epochs: int) -> dict[str, float]:
    """Do the search of one arm in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SSWP_RUNS": folder}
        words = [sys.executable, __file__, "--epochs", str(epochs), "--part"]
        watcher = None
        if arm == "beside":
            watcher = subprocess.Popen([*words, "watch"], env=environment, stdout=subprocess.PIPE, text=True)
            watcher.stdout.readline()
        said = subprocess.run([*words, arm], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(said)
        if watcher:
            found["watcher"] = json.loads(watcher.communicate()[0])["watcher"] / found["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.part:
        print(
            json.dumps(watch(given.epochs) if given.part == "watch" else search(given.epochs, given.part == "within"))
        )
        return
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for turn in range(given.repeats):
        for arm in (*ARMS[turn % 3 :], *ARMS[: turn % 3]):
            rows[arm].append(run(arm, given.epochs))
    print(f"{'':8} {'seconds':>16} {'processor':>16} {'writing':>9} {'watcher':>9}")
    for arm, found in rows.items():
        numbers = [f"{_said([one[name] for one in found]):>16}" for name in ("seconds", "processor")]
        shares = [f"{100 * mean(one.get(name, 0.0) for one in found):8.2f}%" for name in ("writing", "watcher")]
        print(f"{arm:8} {' '.join([*numbers, *shares])}")
    if given.output:
        given.output.write_text(json.dumps({"epochs": given.epochs, "rows": rows}, indent=1) + "\n")


def _said(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


if __name__ == "__main__":
    main()
