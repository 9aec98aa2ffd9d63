"""The discrete architecture as plain data, the published cells, and deriving one from alpha.

Paper: section 3.1 (a cell has 14 edges) and section 3.4 (each pruned edge keeps its best operation).
Deliberate deviations: the caps on skips and pools are ours to switch off (DARTS and P-DARTS use 2 skips).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError, field_validator
from torch import Tensor

from sswp_lib.config import InputError, one_line, short, suggest

CANDIDATES = (
    "skip_connect", "max_pool_3x3", "avg_pool_3x3",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
SKIPS = ("skip_connect",)
POOLS = ("max_pool_3x3", "avg_pool_3x3")
NON_PARAMETERISED = (*SKIPS, *POOLS, "noise", "zero")  # the last two: see `planted`
NONE = "none"  # DARTS's candidate that adds nothing; no genotype holds it

DARTS_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")  # of the tuple that DARTS's code and logs print
MAX_BYTES = 1_000_000  # of a genotype's file; a cell takes about 200
NUM_NODES = 4  # intermediate nodes of a cell; nodes 0 and 1 are its inputs
EDGES = tuple((source, node) for node in range(2, 2 + NUM_NODES) for source in range(node))  # 14, node by node
EDGE_INDEX = {edge: index for index, edge in enumerate(EDGES)}
EDGES_OF_NODE = {node: [EDGE_INDEX[source, node] for source in range(node)] for node in range(2, 2 + NUM_NODES)}


Architecture = TypeVar("Architecture")
Pair = tuple[str, StrictInt]  # (operation, input)


def reduction_cells(num_cells: int) -> tuple[int, ...]:
    """Return the cells that halve the map and double the channels: L//3 and 2L//3 (DARTS)."""
    return tuple(sorted({num_cells // 3, 2 * num_cells // 3}))


class Genotype(BaseModel):
    """A discrete architecture: for every cell 8 pairs (operation, input index), two per intermediate node.

    Input 0 is the output of the cell before the last, 1 that of the last cell, 2-5 are the cell's own nodes.
    Pairs 0-1 enter node 2, 2-3 node 3, 4-5 node 4, 6-7 node 5. Plain data: JSON in and out, validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    cells: list[list[Pair]]

    @field_validator("cells")
    @classmethod
    def _check(cls, cells: list[list[tuple[str, int]]]) -> list[list[tuple[str, int]]]:
        if not cells:
            raise ValueError("a genotype needs at least one cell; this one has none")
        for i, cell in enumerate(cells):
            if len(cell) != 2 * NUM_NODES:
                raise ValueError(f"cell {i} has {len(cell)} pairs; expected 8 (operation, input), two per node")
            for position, (name, source) in enumerate(cell):
                node = 2 + position // 2
                if name not in CANDIDATES:
                    raise ValueError(
                        f"cell {i}, pair {position}: unknown operation {short(name)}{suggest(name, CANDIDATES)}"
                    )
                if not 0 <= source < node:
                    raise ValueError(
                        f"cell {i}, pair {position}: input {source} is out of range; node {node} takes inputs "
                        f"0 to {node - 1}"
                    )
            for pair in range(0, 2 * NUM_NODES, 2):
                if cell[pair][1] == cell[pair + 1][1]:
                    raise ValueError(
                        f"cell {i}, pairs {pair} and {pair + 1}: both enter node {2 + pair // 2} from input "
                        f"{cell[pair][1]}; expected two different inputs"
                    )
        return cells

    @property
    def num_cells(self) -> int:
        return len(self.cells)

    def edges(self, cell: int) -> dict[int, str]:
        """Return {edge index (0-13): operation} of one cell, in edge order."""
        found = {
            EDGE_INDEX[source, 2 + position // 2]: name for position, (name, source) in enumerate(self.cells[cell])
        }
        return dict(sorted(found.items()))

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        return json.dumps({"cells": self.cells})

    def by_kind(self) -> tuple[list[list[Pair]], list[list[Pair]]]:
        """Return the normal cells and the reduction cells, each in their order; a network of one or two has no normal
        one.
        """
        reductions = reduction_cells(self.num_cells)
        normal = [cell for i, cell in enumerate(self.cells) if i not in reductions]
        return normal, [self.cells[i] for i in reductions]

    def to_text(self) -> str | None:
        """Return the genotype as DARTS prints one, to be stacked to its number of cells again; None where its cells are
        not all one of two, or no normal one is among them.
        """
        normal, reduce = self.by_kind()
        if not normal or any(cell != normal[0] for cell in normal) or any(cell != reduce[0] for cell in reduce):
            return None
        nodes = f"range(2, {2 + NUM_NODES})"
        return f"Genotype(normal={normal[0]}, normal_concat={nodes}, reduce={reduce[0]}, reduce_concat={nodes})"

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read a genotype; InputError names the cell, the pair and what was expected."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"not a genotype: {one_line(error)}") from None

    @classmethod
    def from_text(cls, text: str, num_cells: int = 20) -> Genotype:
        """Read a genotype's JSON, or a pair of cells as DARTS's code and logs print it, to be stacked to `num_cells`:
        Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6)).

        Raises:
            InputError: neither of them, several at once, operations that are none of CANDIDATES, or other nodes than 2
                to 5 concatenated.
        """
        count = text.count("Genotype(")
        if count > 1:
            raise InputError(f"{count} genotypes in one text; expected one, so keep that alone")
        return cls.stacked(**_pair_of_cells(text), num_cells=num_cells) if count else cls.from_json(text)

    @classmethod
    def from_file(cls, path: Path, num_cells: int = 20) -> Genotype:
        """Read the file of a genotype in either form; InputError names the file."""
        return of_file(path, lambda text: cls.from_text(text, num_cells))

    @classmethod
    def published(cls, name: str, num_cells: int = 20) -> Genotype:
        """Return a published pair of cells (DARTS_V1, DARTS_V2, PDARTS, PC_DARTS_CIFAR, PC_DARTS_IMAGENET), stacked to
        `num_cells`.
        """
        known = published_cells()
        if name not in known:
            raise InputError(f"no published genotype {name!r}{suggest(name, known)}")
        return cls.stacked(**known[name], num_cells=num_cells)

    @classmethod
    def stacked(cls, normal: list, reduce: list, num_cells: int) -> Genotype:
        """Return the genotype of `num_cells` cells of which those at thirds are `reduce`, all others `normal` (DARTS).

        Args:
            normal, reduce: 8 pairs (operation, input) each. num_cells: 1 or more.
        """
        if num_cells < 1:
            raise InputError(f"num_cells is {num_cells}; expected 1 or more")
        reductions = reduction_cells(num_cells)
        return cls(cells=[reduce if i in reductions else normal for i in range(num_cells)])


def of_file(path: Path, read: Callable[[str], Architecture]) -> Architecture:
    """Return what `read` makes of a file's text; InputError names the file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{size / 1e6:.1f} MB is no genotype; expected at most {MAX_BYTES / 1e6:g} MB")
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise InputError("the file is empty; expected a genotype")
        return read(text)
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r}: not a text; expected a genotype as JSON or as DARTS prints it") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None


def _pair_of_cells(text: str) -> dict[str, list]:
    """Return {"normal": 8 pairs, "reduce": 8 pairs} of DARTS's own text. It is parsed, never evaluated."""
    arguments = text[text.index("Genotype(") + len("Genotype") :]
    depths = accumulate((c == "(") - (c == ")") for c in arguments)
    end = next((i for i, depth in enumerate(depths) if depth == 0), len(arguments))
    try:
        call = ast.parse(f"Genotype{arguments[: end + 1]}", mode="eval").body
        parts = dict(zip(DARTS_FIELDS, call.args, strict=False)) | {k.arg: k.value for k in call.keywords}
        normal, normal_concat, reduce, reduce_concat = (_literal(parts.pop(name)) for name in DARTS_FIELDS)
        if parts:
            raise LookupError(f"unknown {list(parts)}")
    except (SyntaxError, ValueError, TypeError, LookupError, RecursionError, MemoryError):
        raise InputError(
            f"not a genotype: {short(f'Genotype{arguments}')}; expected Genotype(normal=[...], "
            "normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6)) with lists of 8 pairs"
        ) from None
    for name, nodes in (("normal_concat", normal_concat), ("reduce_concat", reduce_concat)):
        if nodes not in (range(2, 6), [2, 3, 4, 5], (2, 3, 4, 5)):
            raise InputError(f"{name} is {short(nodes)}; expected range(2, 6): a cell's output is its four nodes")
    cells = {"normal": normal, "reduce": reduce}
    for name, pairs in cells.items():
        try:
            Genotype(cells=[pairs])
        except ValidationError as error:
            raise InputError(one_line(error).replace("cells: cell 0", name).replace("cells.0", name)) from None
    return cells


def _literal(value: ast.expr) -> object:
    """Return the value of a literal or of a range(...) of literals."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        return range(*map(ast.literal_eval, value.args))
    return ast.literal_eval(value)


def published_cells() -> dict[str, dict[str, list]]:
    """Return {name: {"normal": 8 pairs, "reduce": 8 pairs}} of the published cells."""
    text = resources.files("sswp_lib.space").joinpath("published.json").read_text()
    return json.loads(text)["genotypes"]


def derive(
    alpha: Tensor, max_skips: int | None = 2, max_pools: int | None = 2, candidates: tuple[str, ...] = CANDIDATES
) -> Genotype:
    """Turn architecture parameters into a genotype (paper, section 3.4; DARTS, section 2.4).

    Each node keeps its two incoming edges whose best operation has the highest softmax probability. Then, cell
    by cell, surplus skips and after them surplus pools are replaced, weakest first, by the strongest parameterised
    operation among the node's edges that are not already taken.

    DARTS's "none" may be among the candidates. It has its share of an edge's softmax and is then passed over; what is
    left is not normalised again, so that a large share of it lowers the edge's rank.

    Args:
        alpha: (cells, 14, M) architecture parameters.
        max_skips, max_pools: most of each that a cell may have; None for no cap.
        candidates: the M operation names of alpha's last dimension.

    Raises:
        InputError: an unknown candidate, none but "none", another shape, NaN, or nothing parameterised to take the
            place of a surplus skip or pool.
    """
    strange = [name for name in candidates if name not in (*CANDIDATES, NONE)]
    if strange:
        raise InputError(f"unknown candidate {short(strange[0])}{suggest(strange[0], CANDIDATES)}")
    if set(candidates) <= {NONE}:
        raise InputError(f"candidates are {candidates}; expected an operation that a genotype may hold beside {NONE!r}")
    if alpha.dim() != 3 or len(alpha) == 0 or alpha.shape[1:] != (len(EDGES), len(candidates)):
        raise InputError(
            f"alpha has shape {tuple(alpha.shape)}; expected (cells, {len(EDGES)}, {len(candidates)}), a cell or more"
        )
    return Genotype(cells=[derive_cell(cell, max_skips, max_pools, candidates) for cell in alpha])


def derive_cell(
    alpha: Tensor, max_skips: int | None, max_pools: int | None, candidates: tuple[str, ...] = CANDIDATES
) -> list[tuple[str, int]]:
    """Derive one cell from its (14, M) parameters: 8 pairs (operation, input), by node and then by input."""
    if alpha.isnan().any():
        raise InputError("alpha holds NaN, which has no best operation; lower search.alpha_lr or search.lr")
    probabilities = torch.softmax(alpha.detach().double(), dim=-1).tolist()  # 14 lists of M; ties fall to the first
    ranking = [
        (p, edge, name)
        for edge, row in enumerate(probabilities)
        for p, name in zip(row, candidates, strict=True)
        if name != NONE
    ]
    ranking.sort(key=lambda entry: -entry[0])  # stable
    kept: dict[int, tuple[float, str]] = {}
    for edges in EDGES_OF_NODE.values():
        best: dict[int, tuple[float, str]] = {}
        for p, edge, name in ranking:
            if edge in edges:
                best.setdefault(edge, (p, name))
        kept.update(list(best.items())[:2])  # best is ordered by probability
    _cap(kept, ranking, SKIPS, max_skips)
    _cap(kept, ranking, POOLS, max_pools)
    return [(kept[edge][1], EDGES[edge][0]) for edge in sorted(kept)]


def _cap(
    kept: dict[int, tuple[float, str]],
    ranking: list[tuple[float, int, str]],
    capped: tuple[str, ...],
    limit: int | None,
) -> None:
    """Replace the weakest operations of the kind `capped` until at most `limit` are left; changes `kept`."""
    held = sorted((p, edge) for edge, (p, name) in kept.items() if name in capped)
    surplus = len(held) - limit if limit is not None else 0
    for _, edge in held[: max(surplus, 0)]:
        del kept[edge]
        free = [e for e in EDGES_OF_NODE[EDGES[edge][1]] if e not in kept]
        found = next((entry for entry in ranking if entry[1] in free and entry[2] not in NON_PARAMETERISED), None)
        if found is None:
            raise InputError(
                f"a cell has {surplus} of {'/'.join(capped)} too many for a cap of {limit}, and no candidate with "
                "weights to replace them; expected one, e.g. 'sep_conv_3x3', or None for no cap"
            )
        p, chosen, name = found
        kept[chosen] = (p, name)


def changed_by_caps(
    alpha: Tensor, max_skips: int | None, max_pools: int | None, candidates: tuple[str, ...] = CANDIDATES
) -> int:
    """Count the (operation, input) pairs of the whole network that the caps replaced."""
    free = derive(alpha, None, None, candidates)
    capped = derive(alpha, max_skips, max_pools, candidates)
    return sum(
        len(set(b.items()) - set(a.items()))
        for a, b in zip(map(free.edges, range(free.num_cells)), map(capped.edges, range(capped.num_cells)), strict=True)
    )
