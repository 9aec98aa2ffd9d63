"""The network of a finished training as a file for other machines: a torch program or ONNX, with a model card beside.

The file takes images in 0-1 and normalises them itself; any number of them, of the size that was trained on. Its graph
is of plain operations alone: traced without gradients, and so without the kernels of `space.depthwise` and
`space.small`.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from sswp_lib import __version__
from sswp_lib.config import InputError, RunError, suggest
from sswp_lib.lab.card import Measured, card
from sswp_lib.lab.portable import (
    DESCRIPTION,
    FORMATS,
    NEEDED,
    Description,
    Portable,
    Preprocessing,
    needed,
    note_export,
    opened,
    properties,
)
from sswp_lib.runs import files, records
from sswp_lib.runs.models import Backbone, backbone
from sswp_lib.runs.records import Record

CHECKED = 8  # random images on which a file must give the network's outputs; ours
TOLERANCE = 1e-4  # of them, relative to the largest where that is above 1; ours
TIMED, SECONDS = 30, 3.0  # images timed, one by one, and the most that this may take; ours


class Normalised(nn.Module):
    """A network before which images in 0-1 are normalised."""

    def __init__(self, network: Backbone):
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(network.default_cfg[name]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def export(record: Record, kind: str = "torch", output: Path | None = None) -> Path:
    """Write the network of a training into a file, and its model card beside it, FILE.md; return the file's path.

    Args:
        kind: "torch" (.pt2, for `torch.export.load`) or "onnx". output: by default in the run's folder, by its name.

    Raises:
        InputError: an unknown kind, another ending, packages that are missing, or no training whose weights are here.
        RunError: the file cannot be written, or does not give the network's outputs.
    """
    if kind not in FORMATS:
        raise InputError(f"unknown format {kind!r}{suggest(kind, FORMATS)}")
    path = output or records.root() / record.name / f"{record.name}{FORMATS[kind]}"
    if path.suffix != FORMATS[kind]:
        raise InputError(f"output {str(path)!r} is of format {kind!r}; expected a name that ends in {FORMATS[kind]}")
    model = backbone(record)
    described, network = description(record, model), Normalised(model).eval().requires_grad_(False)
    program = traced(network, described.preprocessing.crop)
    content = content_of(program, described, kind)
    read = opened(content, kind, threads=1)
    measured = Measured(path.name, kind, len(content), _difference(read, network), milliseconds(read))
    files.write(path, content)
    if kind == "torch":
        note_export(path, content)
    files.write(path.with_name(f"{path.name}.md"), card(record, described, measured).encode())
    return path


def description(record: Record, model: Backbone) -> Description:
    """Return what stands in a file beside the network."""
    cfg, images = model.default_cfg, record.config["data"]
    size = images["image_size"]
    return Description(
        output="features" if cfg["classes"] is None else "scores", classes=cfg["classes"], run=record.name,
        preprocessing=Preprocessing(
            resize=images.get("decode_size") or size, crop=size, mean=cfg["mean"], std=cfg["std"]
        ),
        architecture=cfg["architecture"],
        made={"version": __version__, "commit": record.provenance.get("commit"), "seed": record.seed},
    )  # fmt: skip


@torch.no_grad()
def traced(network: nn.Module, size: int) -> torch.export.ExportedProgram:
    """Return the program of a network for any number of images of that size, without the paths of this machine."""
    batch = torch.export.Dim("batch", min=1)
    images = torch.zeros(2, 3, size, size)  # two: of one, a program for one alone would be made
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def content_of(program: torch.export.ExportedProgram, described: Description, kind: str) -> bytes:
    """Return the content of a file with a program and what it says of itself."""
    return _torch_bytes(program, described) if kind == "torch" else _onnx_bytes(program, described)


def _torch_bytes(program: torch.export.ExportedProgram, described: Description) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DESCRIPTION: described.model_dump_json()})
    return buffer.getvalue()


def _onnx_bytes(program: torch.export.ExportedProgram, described: Description) -> bytes:
    for package in NEEDED:
        needed(package)
    names = {"input_names": ["images"], "output_names": [described.output]}
    made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    made.model.metadata_props.update(properties(described))
    return made.model_proto.SerializeToString()


@torch.no_grad()
def _difference(read: Portable, network: nn.Module) -> float:
    """Return the largest difference between a file's outputs and the network's, on random images; RunError where it is
    no rounding.
    """
    size = read.description.preprocessing.crop
    images = torch.rand(CHECKED, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    found = float((read.compute(images) - expected).abs().max())
    if not found <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RunError(f"the exported network's outputs differ by up to {found:.2g} from the run's; none was written")
    return found


def milliseconds(read: Portable) -> float:
    """Return the median time of one image on one core."""
    size, threads, took = read.description.preprocessing.crop, torch.get_num_threads(), []
    image, started = torch.rand(1, 3, size, size), time.perf_counter()
    torch.set_num_threads(1)
    try:
        while len(took) < 3 or (len(took) < TIMED and time.perf_counter() - started < SECONDS):
            before = time.perf_counter()
            read.compute(image)
            took.append(1000 * (time.perf_counter() - before))
    finally:
        torch.set_num_threads(threads)
    return median(took[1:])  # without the first, in which things are made ready
