"""Pi-NAS's space: a 16-layer ResNet in which each layer is one of four blocks with split attention, 4^16 networks.

Papers: Peng et al., "Pi-NAS" (ICCV 2021), section 4.1 (the candidates, the downsample that they share), and Zhang et
al., "ResNeSt: Split-Attention Networks" (2020), whose ResNeSt-50 is B1 in every layer. What these leave open (stem,
poolings, zero gamma) is as in the code released with Pi-NAS. Weights start as torch's layers start them.

Deliberate deviations, none at the papers' width: where a narrower block's channels would not divide among its groups
they are rounded up, and the least width of the attention is 4 in place of 32, which would outweigh a narrow block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib.config import InputError, short, suggest
from sswp_lib.space.cell import pool
from sswp_lib.space.ops import BatchNorm, MaxPool, PointwiseConv2d
from sswp_lib.space.paths import Paths, along, only
from sswp_lib.space.spaces import Choices, Space

DEPTHS = (3, 4, 6, 3)  # layers of each stage, as in ResNet-50
PLANES = 64  # of the first stage, as in ResNet-50; twice as many in each stage after it
EXPANSION = 4  # a layer puts out so many times its stage's planes


@dataclass(frozen=True)
class Kind:
    """A kind of block: r splits of a map, c groups (cardinality), d channels a group where there are 64 planes."""

    radix: int
    cardinality: int
    width: int

    def channels(self, planes: int) -> int:
        """Return the channels of the 3x3 convolution's splits: int(planes * d / 64) * c, a multiple of r * c."""
        return _up(int(planes * self.width / 64) * self.cardinality, self.radix * self.cardinality)

    def attention(self, planes: int, least: int) -> int:
        """Return the channels between the attention's two layers: a quarter of all splits' channels, at least
        `least`, a multiple of c.
        """
        return _up(max(self.channels(planes) * self.radix // 4, least), self.cardinality)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


KINDS = {"B0": Kind(1, 1, 64), "B1": Kind(2, 1, 64), "B2": Kind(1, 2, 42), "B3": Kind(2, 2, 40)}
"""Name -> kind; their order is that of the digits in a path's text. Paper: section 4.1, Block0 to Block3."""


class WeightedSum(nn.Module):
    """The sum over the splits of attention times split: (N, r, C, 1, 1) and (N, r, C, H, W) -> (N, C, H, W)."""

    def forward(self, attention: Tensor, splits: Tensor) -> Tensor:
        return (attention * splits).sum(1)


class SplitAttention(nn.Module):
    """A grouped 3x3 convolution to r maps, and their sum weighted channel by channel (ResNeSt, section 3.1).

    u = ReLU(BN(conv(x))) is cut into r splits u_1 .. u_r of C channels; from the pooled sum of the splits two grouped
    1x1 layers make one logit for each split and channel; the weights are their softmax over the splits, or their
    sigmoid where r = 1. x (N, C, H, W) -> (N, C, H, W), stride 1.

    Args:
        C: a multiple of r * c. inner: channels between the two layers, a multiple of c.
        momentum: of BatchNorm. In training its batch must hold two images or more, for the attention has one pixel.
    """

    def __init__(self, kind: Kind, C: int, inner: int, momentum: float | None):
        super().__init__()
        r, c = self.radix, self.cardinality = kind.radix, kind.cardinality
        self.conv = nn.Conv2d(C, C * r, 3, padding=1, groups=c * r, bias=False)
        self.bn, self.relu = BatchNorm(C * r, momentum=momentum), nn.ReLU()
        self.attention = nn.Sequential(
            nn.Conv2d(C, inner, 1, groups=c), BatchNorm(inner, momentum=momentum), nn.ReLU(),
            nn.Conv2d(inner, C * r, 1, groups=c),
        )  # fmt: skip
        self.weighted = WeightedSum()

    def forward(self, x: Tensor) -> Tensor:
        splits = self.relu(self.bn(self.conv(x))).unflatten(1, (self.radix, -1))  # (N, r, C, H, W)
        logits = self.attention(pool(splits.sum(1))[..., None, None]).flatten(1)  # (N, c * r * C / c), by cardinality
        logits = logits.view(len(x), self.cardinality, self.radix, -1).transpose(1, 2).flatten(2)  # (N, r, C)
        attention = torch.softmax(logits, dim=1) if self.radix > 1 else torch.sigmoid(logits)
        return self.weighted(attention[..., None, None], splits)


def _downsample(C_in: int, C_out: int, stride: int, momentum: float | None) -> nn.Sequential:
    """Return the shortcut of a stage's first layer: 2x2 average (padding not counted) if it halves, 1x1, BN."""
    pooling = [nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)] if stride == 2 else []
    return nn.Sequential(*pooling, PointwiseConv2d(C_in, C_out), BatchNorm(C_out, momentum=momentum))


class Block(nn.Module):
    """A candidate: ReLU(body(x) + shortcut), with body 1x1, split attention, 3x3 average if stride is 2, 1x1.

    `downsample`: the candidate's own way from x to its shortcut, where the layer has none for all of them.
    """

    def __init__(
        self, kind: Kind, C_in: int, planes: int, stride: int, least: int, zero_gamma: bool, momentum: float | None,
        downsample: nn.Module | None,
    ):  # fmt: skip
        super().__init__()
        C, C_out = kind.channels(planes), EXPANSION * planes
        last = BatchNorm(C_out, momentum=momentum)
        if zero_gamma:
            nn.init.zeros_(last.weight)
        pooling = [nn.AvgPool2d(3, 2, padding=1)] if stride == 2 else []  # padding counted, unlike in the shortcut
        self.body = nn.Sequential(
            PointwiseConv2d(C_in, C), BatchNorm(C, momentum=momentum), nn.ReLU(),
            SplitAttention(kind, C, kind.attention(planes, least), momentum),
            *pooling, PointwiseConv2d(C, C_out), last,
        )  # fmt: skip
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return the block's output; `shortcut` is x, or what the layer's shared downsample made of it."""
        if self.downsample is not None:
            shortcut = self.downsample(x)
        return self.relu(self.body(x) + shortcut)


class Layer(nn.Module):
    """The candidates of one layer by name, and the downsample that they share, if any."""

    def __init__(self, operations: dict[str, nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.operations = nn.ModuleDict(operations)
        self.downsample = downsample

    def forward(self, x: Tensor, run: Callable[..., Tensor]) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return run(self.operations, lambda block: block(x, shortcut))


class ResNestNet(nn.Module):
    """Stem, layers, head; with all candidates in each layer (the supernet) or with one (a network of its own).

    `build` makes it. A tensor has the same name in both, so one path comes out of a supernet's weights by
    `network.load_state_dict({name: weights[name] for name in network.state_dict()})`.

    Attributes:
        candidates: the names that a path's numbers stand for. num_features: channels of the last layer.
        head: from the features (N, num_features) to the output.
    """

    def __init__(self, stem: nn.Module, layers: Sequence[Layer], head: nn.Module, num_features: int):
        super().__init__()
        self.stem, self.layers, self.head = stem, nn.ModuleList(layers), head
        self.num_features = num_features
        self.candidates = tuple(KINDS)

    def last_map(self, x: Tensor, run: Callable[..., Tensor] = only) -> Tensor:
        """Return the last layer's map of images x (N, 3, H, W): with four stages (N, num_features, ceil(H / 32),
        ceil(W / 32)).

        Args:
            run: (0, layer, its operations by name, through) -> the layer's output; see `paths.along`. Left out where
                each layer has one candidate.
        """
        x = self.stem(x)
        for i, layer in enumerate(self.layers):
            x = layer(x, lambda operations, through, i=i: run(0, i, operations, through))
        return x

    def features(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        """Return the pooled features of images x (N, 3, H, W), normalised: (N, num_features).

        Args:
            paths: active (1, layers), and inactive and gates where there are two; None where each layer has one
                candidate. Stem, downsample (where shared) and head run once, whatever the paths.

        Raises:
            InputError: paths is None and there is a choice, or paths ask for what is not there.
        """
        if paths is None:
            self._has_no_choice()
            return pool(self.last_map(x))
        self._has(paths)
        return pool(self.last_map(x, along(paths, self.candidates)))

    def forward(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        """Return the head's output for images x (N, 3, H, W); see `features`."""
        return self.head(self.features(x, paths))

    def _has_no_choice(self) -> None:
        for i, layer in enumerate(self.layers):
            if len(layer.operations) > 1:
                raise InputError(
                    f"paths is None, but layer {i + 1} of {len(self.layers)} has {len(layer.operations)} candidates; "
                    f"expected Paths with active of shape (1, {len(self.layers)}), as Space.paths(choices) makes them"
                )

    def _has(self, paths: Paths) -> None:
        expected = (1, len(self.layers))
        if paths.active.shape != expected:
            raise InputError(f"active paths have the shape {tuple(paths.active.shape)}; expected {expected}")
        inactive = [-1] * len(self.layers) if paths.inactive is None else paths.inactive[0].tolist()
        for i, (layer, one, two) in enumerate(zip(self.layers, paths.active[0].tolist(), inactive, strict=True)):
            there = [self.candidates.index(name) for name in layer.operations]
            for k in (one, two) if two != -1 else (one,):
                if k not in there:
                    raise InputError(
                        f"the path in layer {i + 1} of {len(self.layers)} is {k}; expected "
                        + " or ".join(f"{k} ({self.candidates[k]})" for k in there)
                    )


def build(
    operations: Sequence[Sequence[str]], num_classes: int = 1000, head: nn.Module | None = None,
    planes: int = PLANES, depths: Sequence[int] = DEPTHS, stem_width: int = 32, shared_downsample: bool = True,
    zero_gamma: bool | None = None, momentum: float | None = 0.1,
) -> ResNestNet:  # fmt: skip
    """Return the network with these operations in its layers; a map's side halves twice in the stem, and once in each
    stage but the first (rounded up).

    Args:
        operations: for each layer the names of its candidates.
        num_classes: outputs of the linear head. head: a module from (N, num_features) in its place.
        planes: of the first stage, 2 or more (paper: 64); doubled in each stage after it. num_features is four times
            the last stage's. At 8 to 32 planes the largest candidate has up to 6 % more parameters and 8 % more
            multiply-adds than the smallest (paper: 5 and 7), and below that more: see `learn.measure.sizes_of`.
        depths: layers of each stage. stem_width: channels of the stem's first two convolutions (paper: 32), half of
            the third's.
        shared_downsample: one downsample for all candidates of a layer (paper), else one each.
        zero_gamma: start the scale of each block's last BatchNorm at 0, so that the block is its shortcut; None: where
            there is a choice, as in Pi-NAS's supernet.
        momentum: of the running statistics of a network without a choice. With one there are none while it learns, and
            before an evaluation `ops.calibrate` computes them along the paths.

    Raises:
        InputError: operations that do not fit the depths, unknown ones, or a size below the least.
    """
    _check(operations, planes, depths, stem_width)
    searching = any(len(names) > 1 for names in operations)
    momentum = None if searching else momentum
    layer = partial(
        _layer, shared_downsample=shared_downsample, least=32 if planes >= PLANES else 4,
        zero_gamma=searching if zero_gamma is None else zero_gamma, momentum=momentum,
    )  # fmt: skip
    layers, C_in = [], 2 * stem_width
    for names, (C, stride, first) in zip(operations, _places(planes, depths), strict=True):
        layers.append(layer(names, C_in, C, stride, first))
        C_in = EXPANSION * C
    head = nn.Linear(C_in, num_classes) if head is None else head
    return ResNestNet(_stem(stem_width, momentum), layers, head, num_features=C_in)


def _layer(
    names: Sequence[str], C_in: int, planes: int, stride: int, first: bool, shared_downsample: bool, least: int,
    zero_gamma: bool, momentum: float | None,
) -> Layer:  # fmt: skip
    def downsample() -> nn.Module | None:
        return _downsample(C_in, EXPANSION * planes, stride, momentum) if first else None

    blocks: dict[str, nn.Module] = {
        name: Block(
            KINDS[name], C_in, planes, stride, least, zero_gamma, momentum, None if shared_downsample else downsample()
        )
        for name in names
    }
    return Layer(blocks, downsample() if shared_downsample else None)


def _places(planes: int, depths: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Return (planes, stride, first of its stage) of each layer."""
    return [
        (planes * 2**stage, 2 if stage > 0 and i == 0 else 1, i == 0)
        for stage, depth in enumerate(depths)
        for i in range(depth)
    ]


def _stem(C: int, momentum: float | None) -> nn.Sequential:
    parts: list[nn.Module] = []
    for C_in, C_out, stride in ((3, C, 2), (C, C, 1), (C, 2 * C, 1)):
        parts += [nn.Conv2d(C_in, C_out, 3, stride, padding=1, bias=False), BatchNorm(C_out, momentum=momentum)]
        parts += [nn.ReLU()]
    return nn.Sequential(*parts, MaxPool(2))


def _check(operations: Sequence[Sequence[str]], planes: int, depths: Sequence[int], stem_width: int) -> None:
    _check_depths(depths)
    for name, value, least in (("planes", planes, 2), ("stem_width", stem_width, 1)):
        if value < least:
            raise InputError(f"{name} is {value}; expected {least} or more")
    if len(operations) != sum(depths):
        raise InputError(f"operations for {len(operations)} layers; expected {sum(depths)}, as depths {depths} add up")
    for i, names in enumerate(operations):
        if not names:
            raise InputError(f"layer {i + 1} of {len(operations)} has no operation; expected one of {', '.join(KINDS)}")
        for name in names:
            if name not in KINDS:
                raise InputError(
                    f"layer {i + 1} of {len(operations)}: unknown operation {short(name)}{suggest(str(name), KINDS)}"
                )


def _check_depths(depths: Sequence[int]) -> None:
    if not depths or min(depths) < 1:
        raise InputError(f"depths are {tuple(depths)}; expected one stage or more, of one layer or more each")


def resnest(depths: Sequence[int] = DEPTHS) -> Space:
    """Return the space of networks with so many layers in their stages; its other sizes are `build`'s.

    A path's text is one digit a layer, 0 to 3 for B0 to B3, with one space between two.
    """
    _check_depths(depths)
    depths = tuple(depths)
    name = "resnest" if depths == DEPTHS else f"resnest-{'-'.join(map(str, depths))}"
    edges = tuple(f"{stage + 1}.{i + 1}" for stage, depth in enumerate(depths) for i in range(depth))

    def built(operations: Sequence[Sequence[str]], **size: Any) -> ResNestNet:
        return build(operations, depths=depths, **size)

    def parse(text: str) -> list[str]:
        return _parse(text, len(edges))

    return Space(name, edges, tuple(KINDS), built, parse=parse, write=_write)


def _parse(text: str, layers: int) -> list[str]:
    digits = {str(k): name for k, name in enumerate(KINDS)}
    parts = text.split(" ")
    expected = f"expected {layers} of {', '.join(digits)}, one a layer, with one space between two"
    for i, part in enumerate(parts):
        if part not in digits:
            raise InputError(f"digit {i + 1} of a path is {short(part)}; {expected}")
    if len(parts) != layers:
        raise InputError(f"a path of {len(parts)} digits, {short(text)}; {expected}")
    return [digits[part] for part in parts]


def _write(choices: Choices) -> str:
    return " ".join(str(list(KINDS).index(name)) for name in choices.operations)


RESNEST = resnest()
"""The paper's space: 16 layers, 4^16 networks."""
