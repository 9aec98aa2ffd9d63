"""The relaxed search as one would first write it, to set the library's beside it.

After DARTS (Liu et al. 2019, section 2.2, equation (2), and algorithm 1 in first order), with plain torch modules:
every edge computes its eight candidates, `none` too, one after the other, and adds them up by softmax weights; maps are
NCHW, gradients are torch's own, BatchNorm keeps running statistics, and alpha steps back-propagate to the weights too.
`LeanMixtureSteps` does without the last, which the method does not ask for. Both compute what the library computes
(`mixture.agreement` checks it), and are used by nothing but the benchmark.
"""

from __future__ import annotations

import torch
from reference import ReferenceCell, ReferenceNet, descend, operations
from torch import Tensor, nn

from sswp_lib.learn import nt_xent
from sswp_lib.learn.loop import frozen


class Nothing(nn.Module):
    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, :, :: self.stride, :: self.stride]


class MixtureEdge(nn.Module):
    """Eight candidates in DARTS's order, weighted and summed."""

    def __init__(self, C: int, stride: int):
        super().__init__()
        skip, max_pool, avg_pool, *convolutions = operations(C, stride)
        self.operations = nn.ModuleList([Nothing(stride), max_pool, avg_pool, skip, *convolutions])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * operation(x) for w, operation in zip(weights, self.operations, strict=True))


class MixtureCell(ReferenceCell):
    edge = MixtureEdge

    def forward(self, before_last: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        states, edges = [self.input0(before_last), self.input1(last)], zip(self.edges, weights, strict=True)
        for node in range(2, 6):
            pairs = [next(edges) for _ in range(node)]
            states.append(sum(edge(x, own) for x, (edge, own) in zip(states, pairs, strict=True)))
        return torch.cat(states[2:], dim=1)


class MixtureNet(ReferenceNet):
    """Stem, cells, head; alpha (2, 14, 8) of normal cells and of reduction cells."""

    cell = MixtureCell

    def __init__(self, init_channels: int, num_cells: int):
        super().__init__(init_channels, num_cells)
        self.reductions = (num_cells // 3, 2 * num_cells // 3)
        self.alpha = nn.Parameter(1e-3 * torch.randn(2, 14, 8))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.alpha, dim=-1)
        before_last = last = self.stem(x)
        for i, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, weights[int(i in self.reductions)])
        return self.head(last.mean(dim=(2, 3)))


class MixtureSteps:
    """The two steps on fixed views (2N, 3, S, S), by SSNAS's loss at this temperature."""

    def __init__(self, net: MixtureNet, training: Tensor, validation: Tensor, temperature: float):
        self.net, self.temperature = net, temperature
        self.training, self.validation = training.contiguous(), validation.contiguous()
        self.weights = net.weight_parameters()
        self.optimizer = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.alpha_optimizer = torch.optim.Adam([net.alpha], lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def loss(self, views: Tensor) -> Tensor:
        return nt_xent(self.net(views), self.temperature)

    def weight_step(self) -> float:
        return descend(self.loss(self.training), self.net, self.weights, self.optimizer)

    def alpha_step(self) -> float:
        loss = self.loss(self.validation)
        self.net.zero_grad()
        loss.backward()
        self.alpha_optimizer.step()
        return loss.item()


class LeanMixtureSteps(MixtureSteps):
    """The same, without the weights' gradients in alpha steps."""

    def alpha_step(self) -> float:
        with frozen(self.weights):
            return super().alpha_step()
