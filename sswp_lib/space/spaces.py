"""Search spaces as values: what may be chosen, where, and what network a choice is.

A space whose edges all stay is one `Space`: names of its edges, its candidates, and a builder of the network. The
network of one choice and the one with every candidate in it are the same class with one candidate or all of them on an
edge, so that their parameters have the same names. A space of one's own is one file like `bench201`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from sswp_lib.config import InputError, short, suggest
from sswp_lib.space.paths import Paths


@dataclass(frozen=True)
class Choices:
    """An architecture of a space whose edges all stay: for each edge the name of its operation. Plain data."""

    space: str
    operations: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps({"space": self.space, "operations": list(self.operations)})


@dataclass(frozen=True)
class Space:
    """A space whose edges all stay and whose candidates are the same everywhere.

    Attributes:
        name: what configurations call it. edges: their names, in order. candidates: names, in order.
        build: (operations of each edge, sequence of names each; **size) -> the network, with `features(x, paths)`,
            `forward(x, paths)`, `num_features`, `head`; see `supernet` and `network`.
        connected: whether anything flows from the input to the output; None: always.
        parse, write: a text of the space's own, and back; None: JSON alone.
    """

    name: str
    edges: tuple[str, ...]
    candidates: tuple[str, ...]
    build: Callable[..., nn.Module]
    connected: Callable[[Choices], bool] | None = None
    parse: Callable[[str], Sequence[str]] | None = None
    write: Callable[[Choices], str] | None = None

    def choices(self, operations: Sequence[str]) -> Choices:
        """Return the architecture of these operations, one an edge; InputError names what does not fit."""
        if len(operations) != len(self.edges):
            raise InputError(f"{len(operations)} operations; expected {len(self.edges)}, one an edge of {self.name}")
        for edge, operation in zip(self.edges, operations, strict=True):
            if operation not in self.candidates:
                raise InputError(
                    f"edge {edge}: unknown operation {short(operation)}{suggest(str(operation), self.candidates)}"
                )
        return Choices(self.name, tuple(operations))

    def read(self, text: str) -> Choices:
        """Read an architecture as `Choices.to_json` or the space's own `write` gives it; nothing is evaluated.

        Raises:
            InputError: anything else, another space, an unknown operation.
        """
        if self.parse is not None and not text.lstrip().startswith("{"):
            return self.choices(self.parse(text))
        try:
            plain: Any = json.loads(text)
        except (ValueError, RecursionError):
            plain = None
        match plain:
            case {"space": space, "operations": [*operations], **other} if not other:
                if space != self.name:
                    raise InputError(f"an architecture of the space {short(space)}; expected one of {self.name!r}")
                return self.choices(operations)
        raise InputError(
            f'not an architecture of {self.name}: {short(text)}; expected {{"space": "{self.name}", '
            '"operations": [...]}'
        )

    def everything(self) -> Iterator[Choices]:
        """Yield every architecture, in the order of its candidates, the last edge fastest."""
        for operations in product(self.candidates, repeat=len(self.edges)):
            yield Choices(self.name, operations)

    def draw(self, generator: torch.Generator) -> Choices:
        """Draw an architecture: each edge uniform and independent, drawn anew until it is connected."""
        while True:
            picks = torch.randint(len(self.candidates), (len(self.edges),), generator=generator)
            if self.is_connected(drawn := self._of(picks)):
                return drawn

    def draw_two(self, generator: torch.Generator) -> tuple[Choices, Choices]:
        """Draw two architectures that share no operation: on each edge two different candidates, uniform, drawn anew
        until both are connected. InputError: there is only one candidate.
        """
        if len(self.candidates) < 2:
            raise InputError(
                f"{self.name} has the candidate {self.candidates[0]} alone; expected two or more to differ"
            )
        while True:
            noise = torch.rand(len(self.edges), len(self.candidates), generator=generator)
            pair = noise.topk(2, dim=-1).indices
            one, two = self._of(pair[:, 0]), self._of(pair[:, 1])
            if self.is_connected(one) and self.is_connected(two):
                return one, two

    def mutation(self, parent: Choices, p: float, generator: torch.Generator) -> Choices:
        """Return the parent with each edge, with probability p, drawn anew from all candidates; connected or not."""
        changed = torch.rand(len(self.edges), generator=generator) < p
        drawn = torch.randint(len(self.candidates), (len(self.edges),), generator=generator)
        each = zip(parent.operations, changed.tolist(), drawn.tolist(), strict=True)
        return self.choices([self.candidates[k] if new else operation for operation, new, k in each])

    def crossover(self, one: Choices, two: Choices, generator: torch.Generator) -> Choices:
        """Return a child that has each edge of either parent, with equal probabilities; connected or not."""
        first = (torch.rand(len(self.edges), generator=generator) < 0.5).tolist()
        each = zip(one.operations, two.operations, first, strict=True)
        return self.choices([a if mine else b for a, b, mine in each])

    def is_connected(self, choices: Choices) -> bool:
        return self.connected is None or self.connected(choices)

    def _of(self, picks: Tensor) -> Choices:
        return Choices(self.name, tuple(self.candidates[k] for k in picks.tolist()))

    def paths(self, choices: Choices) -> Paths:
        """Return the architecture as the paths of a network with every candidate: active (1, edges). InputError: it is
        none of this space.
        """
        operations = self.choices(choices.operations).operations
        return Paths(torch.tensor([[self.candidates.index(name) for name in operations]]))

    def supernet(self, **size: Any) -> nn.Module:
        """Return the network with every candidate on every edge; `forward(x, paths)`."""
        return self.build([self.candidates] * len(self.edges), **size)

    def network(self, choices: Choices, **size: Any) -> nn.Module:
        """Return the network of one architecture; its `forward(x)` needs no paths."""
        return self.build([(name,) for name in choices.operations], **size)
