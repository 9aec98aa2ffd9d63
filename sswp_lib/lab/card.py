"""The model card of an exported network: what it is, how good, where from. From the run's record alone, and from what
was measured of the file.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scipy.stats import binomtest

from sswp_lib.config import Config, flat
from sswp_lib.lab.portable import DESCRIPTION, Description
from sswp_lib.presets import PRESETS, load_config
from sswp_lib.runs.models import data_facts
from sswp_lib.runs.records import Record

LICENCES = {
    "digits": "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository), "
    "CC BY 4.0; the copy that comes with scikit-learn.",
    "cifar10": "none is stated by its authors (A. Krizhevsky, 2009); a part of 80 Million Tiny Images, which its own "
    "authors have withdrawn.",
    "cifar100": "none is stated by its authors (A. Krizhevsky, 2009); a part of 80 Million Tiny Images, which its own "
    "authors have withdrawn.",
    "tiny-imagenet": "a part of ImageNet: research and teaching without commercial use, by ImageNet's terms of access.",
    "imagenet": "research and teaching without commercial use, by ImageNet's terms of access.",
}
STARTS = {
    "random": "at random",
    "concomitant": "from weights that a search found on the way",
    "simclr": "from a SimCLR pre-training without labels, of the same architecture",
    "simclr_matched": "from a SimCLR pre-training without labels, of the same architecture, on half of the images",
}
OWN_ROWS = ("train.init", "train.labels", "train.labels_per_class")  # settings that the table tells
LISTED = 8  # of the settings that differ from a preset's


@dataclass(frozen=True)
class Measured:
    """What was measured of an exported file: bytes, the largest difference from the network's own outputs, and the
    milliseconds of an image on one core.
    """

    file: str
    kind: str
    size: int
    difference: float
    milliseconds: float


def card(record: Record, described: Description, measured: Measured) -> str:
    """Return the model card as Markdown."""
    rows = _results(record) | _network(record, described) | _file(measured) | _provenance(record)
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    what = "An image classifier" if described.classes else "A network from images to features, trained without labels"
    return (
        f"# {record.name}\n\n{what}: a training of SSWP-NAS, reproduced.\n\n{_size(record)}\n\n"
        f"| | |\n| --- | --- |\n{table}\n\n{_use(described, measured)}"
    )


def tested(record: Record) -> tuple[float, float, float, int]:
    """Return the test accuracy of a training's weights in percent, its 95 % interval (Wilson's, over test images), and
    how many images that were.
    """
    found, count = record.result, data_facts(record)["test_images"]
    top1 = found.get("calibrated", found)["test"]["top1"]  # the weights that are kept are the calibrated ones
    low, high = binomtest(round(top1 / 100 * count), count).proportion_ci(0.95, "wilson")
    return top1, 100 * float(low), 100 * float(high), count


def nearest_presets(record: Record) -> tuple[list[str], list[str]]:
    """Return the presets whose network and training are most like a run's, and the settings in which they differ."""
    name, differ = record.config["data"]["name"], {}
    found = flat({section: record.config[section] for section in ("model", "train")})
    seen: list[Config] = []
    for preset in PRESETS:
        config = load_config(preset, "folder:own" if name == "folder" else name)
        if config in seen:  # of the same settings on this data set
            continue
        seen.append(config)
        own = flat(config.model_dump(mode="json"))
        changed = [setting for setting, value in found.items() if own.get(setting) != value]
        differ[preset] = [f"{setting} = {found[setting]}" for setting in changed if setting not in OWN_ROWS]
    nearest = min(differ, key=lambda preset: len(differ[preset]))
    return [preset for preset in differ if differ[preset] == differ[nearest]], differ[nearest]


def _size(record: Record) -> str:
    """Return at what size a run was trained: numbers of small presets say so wherever they stand."""
    presets, differ = nearest_presets(record)
    more = f" and {len(differ) - LISTED} more" if len(differ) > LISTED else ""
    but = f", but for {', '.join(differ[:LISTED])}{more}" if differ else ""
    at = f"Trained at the preset {' or '.join(f'`{preset}`' for preset in presets)}{but}."
    if presets == ["paper"]:
        return at
    return (
        f"**{at}** That is a network and a training of reduced size: its numbers are "
        "the method's at that size, not the paper's."
    )


def _results(record: Record) -> dict[str, str]:
    known, data, train, result = data_facts(record), record.config["data"], record.config["train"], record.result
    labelled, origin = train["objective"] == "supervised", record.provenance.get("started_from")
    held_out = f"; {result['validated_on']} more were held out for validation" if result["validated_on"] else ""
    rows = {
        "data set": f"{data['name']}{f', of content {content}' if (content := data.get('content')) else ''}: "
        f"{known['images']} training images",
        "licence of the data": LICENCES.get(data["name"], "not known here: that of your own images"),
        "labels used": f"{result['trained_on']}{held_out}" if labelled else f"none ({result['trained_on']} images)",
        "weights started": STARTS[train["init"]] + (f" (`{origin}`)" if origin else ""),
    }
    if train["freeze"] == "backbone":
        rows["trained"] = "the classifier alone, on features that stayed as they were"
    if labelled:
        top1, low, high, count = tested(record)
        rows["test accuracy"] = f"{top1:.2f} % [{low:.2f}, {high:.2f}]: 95 % interval (Wilson) over {count} test images"
        rows["of how many trainings"] = "one; another seed gives another accuracy, of which the interval says nothing"
        if "classes_without_test" in result:
            rows["classes without test images"] = ", ".join(result["classes_without_test"])
    return rows


def _network(record: Record, described: Description) -> dict[str, str]:
    images, model = described.preprocessing, record.config["model"]
    rows = {
        "network": f"{model['num_cells']} cells, {model['init_channels']} channels in the first, stem {model['stem']}",
        "parameters": f"{record.result['parameters']:,}",
        "multiply-adds": f"{record.result['multiply_adds']:,} an image",
        "input": f"float32 (N, 3, {images.crop}, {images.crop}), red, green, blue in 0-1; normalised inside",
    }
    if images.resize != images.crop:
        rows["of an image"] = f"its middle square, resized to {images.resize} pixels, of that the middle"
    if described.classes:
        rows["output"] = "a score for each class, of which a softmax makes probabilities"
        rows["classes"] = ", ".join(described.classes)
    else:
        rows["output"] = "features, no classes"
    if model["precision"] != "float32":
        rows["precision"] = f"trained and tested in {model['precision']}; the file computes in float32"
    return rows


def _file(measured: Measured) -> dict[str, str]:
    by = "torch" if measured.kind == "torch" else "onnxruntime"
    return {
        "file": f"{measured.file}, {measured.size:,} bytes",
        "exactness": f"outputs within {measured.difference:.1g} of the run's own network, on random images",
        "latency": f"{measured.milliseconds:.2f} ms an image, one at a time, on one core of {_processor()} "
        f"({by} {version(by)}; median)",
    }


def _processor() -> str:
    """Return the name of this machine's processor."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _provenance(record: Record) -> dict[str, str]:
    made = record.provenance
    return {
        "run": f"`{record.name}`, seed {record.seed}, finished {made.get('finished')}",
        "made with": f"sswp {made.get('version')}, commit {made.get('commit')}, torch {made.get('torch')} on "
        f"{made.get('device')}",
    }


TORCH = """import json, torch

beside = {{"{description}": ""}}
network = torch.export.load("{file}", extra_files=beside).module()
described = json.loads(beside["{description}"])
{output} = network(images)  # float32 (N, 3, {crop}, {crop}) in 0-1"""
ONNX = """import json, onnxruntime

session = onnxruntime.InferenceSession("{file}")
described = {{name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}}
({output},) = session.run(None, {{"images": images}})  # float32 (N, 3, {crop}, {crop}) in 0-1"""


def _use(described: Description, measured: Measured) -> str:
    code = (TORCH if measured.kind == "torch" else ONNX).format(
        description=DESCRIPTION, file=measured.file, output=described.output, crop=described.preprocessing.crop
    )
    return f"## Use\n\n```python\n{code}\n```\n\n`described` has classes, preprocessing and architecture.\n"


def _cell(text: str) -> str:
    """Return a text as it may stand in a table of Markdown."""
    return " ".join(text.replace("|", "\\|").split())
