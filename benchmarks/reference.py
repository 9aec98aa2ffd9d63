"""A two-path supernet as one would first write it, to set the library's beside it.

After the description of ProxylessNAS (section 3.2) and of this project's search space, with plain torch modules: every
edge draws for itself and remembers what it drew, both drawn operations run in every step, gates are parameters whose
gradients are read afterwards, BatchNorm keeps running statistics, maps are NCHW, and architecture steps back-propagate
to the weights too. `LeanSteps` does without the inactive operation in weight steps and without the weights' gradients
in architecture steps, the two that the method does not ask for: what is left of the difference is how it is computed.
It computes what the library computes (`step.agreement` checks it), and is used by nothing but the benchmark.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sswp_lib.learn import nt_xent
from sswp_lib.learn.loop import frozen

NUM_CANDIDATES = 7
ALPHA_NAMES = ("alpha", "gates")


class Halve(nn.Module):
    """The skip of stride 2: two strided 1x1 convolutions on grids shifted by one pixel."""

    def __init__(self, C_in: int, C_out: int):
        super().__init__()
        self.first = nn.Conv2d(C_in, C_out // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(C_in, C_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(C_out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.bn(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], dim=1))


def bring(C_in: int, C_out: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(C_in, C_out, 1, bias=False), nn.BatchNorm2d(C_out, affine=False))


def half_separable(C: int, kernel: int, stride: int, dilation: int) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    depthwise = nn.Conv2d(C, C, kernel, stride, padding, dilation, groups=C, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C, affine=False)]


def operations(C: int, stride: int) -> nn.ModuleList:
    """Return the seven candidates in the library's order."""
    separable = [nn.Sequential(*half_separable(C, k, stride, 1), *half_separable(C, k, 1, 1)) for k in (3, 5)]
    dilated = [nn.Sequential(*half_separable(C, k, stride, 2)) for k in (3, 5)]
    return nn.ModuleList([
        nn.Identity() if stride == 1 else Halve(C, C),
        nn.Sequential(nn.MaxPool2d(3, stride, padding=1), nn.BatchNorm2d(C, affine=False)),
        nn.Sequential(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False), nn.BatchNorm2d(C, affine=False)),
        *separable, *dilated,
    ])  # fmt: skip


class MixedEdge(nn.Module):
    """All candidates of an edge, its alpha, its gates, what it drew last, and whether both drawn operations run."""

    def __init__(self, C: int, stride: int):
        super().__init__()
        self.operations = operations(C, stride)
        self.alpha = nn.Parameter(torch.zeros(NUM_CANDIDATES))
        self.gates = nn.Parameter(torch.zeros(NUM_CANDIDATES))
        self.active, self.inactive, self.both_run = 0, 1, True

    @torch.no_grad()
    def draw(self) -> None:
        """Draw two operations without replacement, then the active one of them in proportion to their probabilities."""
        p = torch.softmax(self.alpha, dim=0)
        a, b = torch.multinomial(p, 2).tolist()
        first = bool(torch.rand((), device=p.device) < p[a] / (p[a] + p[b]))
        self.set(a, b) if first else self.set(b, a)

    @torch.no_grad()
    def set(self, active: int, inactive: int) -> None:
        self.active, self.inactive = active, inactive
        self.gates.zero_()
        self.gates[active] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.both_run:
            return self.operations[self.active](x)
        with torch.no_grad():
            other = self.operations[self.inactive](x)
        return self.gates[self.active] * self.operations[self.active](x) + self.gates[self.inactive] * other

    @torch.no_grad()
    def gates_to_alpha(self) -> None:
        """dL/dalpha_i = sum over j of dL/dg_j p_j (delta_ij - p_i), over the two drawn."""
        pair = torch.tensor([self.active, self.inactive], device=self.alpha.device)
        p, grad = torch.softmax(self.alpha[pair], dim=0), self.gates.grad[pair]
        self.alpha.grad = torch.zeros_like(self.alpha)
        self.alpha.grad[pair] = p * (grad - (grad * p).sum())

    @torch.no_grad()
    def shift_back(self, before: Tensor) -> None:
        pair = torch.tensor([self.active, self.inactive], device=self.alpha.device)
        self.alpha[pair] += before[pair].logsumexp(0) - self.alpha[pair].logsumexp(0)


class ReferenceCell(nn.Module):
    edge: type[nn.Module] = MixedEdge

    def __init__(self, C_before_last: int, C_last: int, C: int, reduction: bool, after_reduction: bool):
        super().__init__()
        self.input0 = Halve(C_before_last, C) if after_reduction else bring(C_before_last, C)
        self.input1 = bring(C_last, C)
        self.edges = nn.ModuleList(
            self.edge(C, 2 if reduction and source < 2 else 1) for node in range(2, 6) for source in range(node)
        )

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        states, edges = [self.input0(before_last), self.input1(last)], iter(self.edges)
        for node in range(2, 6):
            states.append(sum(next(edges)(states[source]) for source in range(node)))
        return torch.cat(states[2:], dim=1)


class ReferenceNet(nn.Module):
    """Stem, cells, global average pool, projection head."""

    cell: type[nn.Module] = ReferenceCell

    def __init__(self, init_channels: int, num_cells: int):
        super().__init__()
        C = init_channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, 3 * C, 3, padding=1, bias=False), nn.BatchNorm2d(3 * C)
        )  # affine, as the library's
        self.cells = nn.ModuleList()
        C_before_last = C_last = 3 * C
        after_reduction = False
        for i in range(num_cells):
            reduction = i in (num_cells // 3, 2 * num_cells // 3)
            C = 2 * C if reduction else C
            self.cells.append(self.cell(C_before_last, C_last, C, reduction, after_reduction))
            C_before_last, C_last, after_reduction = C_last, 4 * C, reduction
        self.head = nn.Sequential(nn.Linear(C_last, C_last), nn.ReLU(), nn.Linear(C_last, 128))

    def forward(self, x: Tensor) -> Tensor:
        before_last = last = self.stem(x)
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
        return self.head(last.mean(dim=(2, 3)))

    def edges(self) -> list[MixedEdge]:
        return [edge for cell in self.cells for edge in cell.edges]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but alphas and gates, in the library's order."""
        return [p for name, p in self.named_parameters() if name.rpartition(".")[2] not in ALPHA_NAMES]


def descend(loss: Tensor, net: nn.Module, weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> float:
    """Do a step on the weights, their gradient clipped; return the loss."""
    net.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 5.0)
    optimizer.step()
    return loss.item()


class ReferenceSteps:
    """The two steps, on fixed images x (2N, 3, S, S)."""

    def __init__(self, init_channels: int, num_cells: int, x: Tensor):
        self.x = x.contiguous()
        self.net = ReferenceNet(init_channels, num_cells).to(x.device)
        self.weights, self.alphas = self.net.weight_parameters(), [edge.alpha for edge in self.net.edges()]
        self.optimizer = torch.optim.SGD(self.weights, lr=0.025, momentum=0.9, weight_decay=4e-5)
        self.alpha_optimizer = torch.optim.Adam(self.alphas, lr=0.001, betas=(0.0, 0.99))

    def weight_step(self) -> float:
        for edge in self.net.edges():
            edge.draw()
        loss = nt_xent(self.net(self.x))
        return descend(loss, self.net, self.weights, self.optimizer)

    def alpha_step(self) -> float:
        for edge in self.net.edges():
            edge.draw()
        loss = nt_xent(self.net(self.x))
        self.net.zero_grad()
        loss.backward()
        before = [alpha.detach().clone() for alpha in self.alphas]
        for edge in self.net.edges():
            edge.gates_to_alpha()
        self.alpha_optimizer.step()
        for edge, old in zip(self.net.edges(), before, strict=True):
            edge.shift_back(old)
        self.net.zero_grad()
        return loss.item()


class LeanSteps(ReferenceSteps):
    """The same without the work that only the plain way makes: see above."""

    def weight_step(self) -> float:
        self._let_both_run(False)
        return super().weight_step()

    def alpha_step(self) -> float:
        self._let_both_run(True)
        with frozen(self.weights):
            return super().alpha_step()

    def _let_both_run(self, both_run: bool) -> None:
        for edge in self.net.edges():
            edge.both_run = both_run
