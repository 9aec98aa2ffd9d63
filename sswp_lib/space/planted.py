"""Operations that are planted among the candidates to see whether a search tells good from bad: an instrument, no part
of the search space.

A search that works drives down what can only harm, and is indifferent between twins. What is planted takes part in
every step like any other candidate; a pruned cell keeps none of it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from sswp_lib.space.ops import OPERATIONS, Builder, subsample


class Noise(nn.Module):
    """Independent normal numbers, of the spread that operations behind BatchNorm have. They are drawn anew for each
    batch, from a generator that the batch itself seeds, so that a run that is taken up draws them again.
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        like = subsample(x.detach()) if self.stride == 2 else x.detach()
        key = hashlib.sha256(like.flatten()[:4096].float().cpu().numpy().tobytes()).digest()
        g = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        return torch.randn(like.shape, generator=g).to(like.device, like.dtype)


class Zero(nn.Module):
    """Nothing: an edge that is not there."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(subsample(x) if self.stride == 2 else x)


TWIN_OF = "sep_conv_5x5"  # what "twin" is another instance of, with weights of its own

PLANTED: dict[str, Builder] = {
    "noise": lambda C, stride, affine, momentum: Noise(stride),
    "zero": lambda C, stride, affine, momentum: Zero(stride),
    "twin": OPERATIONS[TWIN_OF],
}
