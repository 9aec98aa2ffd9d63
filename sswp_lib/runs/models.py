"""The network of a finished training as a module for other code, with the names that users of timm know."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn

from sswp_lib.config import Data, InputError, Model
from sswp_lib.learn.data import facts
from sswp_lib.learn.data import load as load_data
from sswp_lib.learn.known import CIFAR
from sswp_lib.learn.train import network_of
from sswp_lib.runs import records
from sswp_lib.runs.records import Record
from sswp_lib.runs.runs import has_weights
from sswp_lib.space.cell import pool


class Backbone(nn.Module):
    """The network of a training. Of a pre-training without labels `forward` gives the features.

    Attributes:
        num_features: of an image. num_classes: 0 where there are none.
        default_cfg: input_size (3, S, S); mean and std of the images in 0-1, by which the input is to be normalised;
            crop_pct and interpolation of the middle square; num_classes, and classes by name (None where there are
            none); architecture, as plain data; run, its name.
    """

    def __init__(self, network: nn.Module, default_cfg: dict[str, Any]):
        super().__init__()
        self.network, self.default_cfg = network, default_cfg
        self.num_features, self.num_classes = network.num_features, default_cfg["num_classes"]

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (N, num_classes), or where there are no classes features (N, num_features).

        Args:
            x: images (N, 3, S, S), normalised.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map, before the pool: (N, num_features, H', W')."""
        return self.network.last_map(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return what `forward` does, from the last map; features (N, num_features) where `pre_logits`."""
        features = pool(x)
        return features if pre_logits else self.network.head(features)

    def get_classifier(self) -> nn.Module:
        return self.network.head

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new, untrained linear classifier in place of the head; none where num_classes is 0."""
        like = next(self.network.parameters())
        head = nn.Linear(self.num_features, num_classes).to(like) if num_classes else nn.Identity()
        self.network.head, self.num_classes = head, num_classes
        self.default_cfg = self.default_cfg | {"num_classes": num_classes, "classes": None}


def load(run: str) -> Backbone:
    """Return the network of a finished training with its weights, on the CPU, in evaluation mode.

    Args:
        run: a training's name; its beginning is enough.

    Raises:
        InputError: no such run, or not one of them; no training; no weights of it here.
    """
    return backbone(records.find(run))


def backbone(record: Record) -> Backbone:
    """Return the network of a training's record, as `load` does."""
    if record.kind != "train":
        raise InputError(
            f"run {record.name} is a {record.kind}, whose network is not trained to its end; give a training: "
            f"sswp train {record.name} --init concomitant"
        )
    if not has_weights(record):
        raise InputError(
            f"the weights of {record.name} are not here, as of records that were restored; do that run again with "
            "--fresh"
        )
    known, images = data_facts(record), record.config["data"]
    labelled = record.config["train"]["objective"] == "supervised"
    classes = known["classes"] if labelled else None
    network = network_of(record.architecture, Model(**record.config["model"]), len(classes or ["none"]))
    left = ("auxiliary_head.",) if labelled else ("auxiliary_head.", "head.")
    if not labelled:
        network.head = nn.Identity()
    network.load_state_dict({name: t for name, t in record.weights().items() if not name.startswith(left)})
    size = images["image_size"]
    default_cfg = {
        "input_size": (3, size, size), "mean": tuple(known["mean"]), "std": tuple(known["std"]),
        "crop_pct": size / (images.get("decode_size") or size), "interpolation": "bilinear",
        "num_classes": len(classes or ()), "classes": classes and tuple(classes),
        "architecture": json.loads(record.architecture.to_json()), "run": record.name,
    }  # fmt: skip
    return Backbone(network, default_cfg).eval()


def data_facts(record: Record) -> dict[str, Any]:
    """Return what a training's record says of its images: see `learn.data.facts`.

    Records of earlier releases do not say it: the images are then asked, where they are always the same.
    """
    if "data" in record.result:
        return record.result["data"]
    data = record.config["data"]
    if data["name"] != "digits" and data["name"] not in CIFAR:
        raise InputError(
            f"the record of {record.name} is of an earlier release and does not tell the classes and the colours of "
            f"its {data['name']}; do that run again with --fresh"
        )
    return facts(load_data(Data(**{name: value for name, value in data.items() if name != "views"})))
