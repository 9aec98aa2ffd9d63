"""Operations compiled by torch.compile: they compute what they are written as, wherever a loop places a model."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from sswp_lib.config import InputError
from sswp_lib.learn import loop
from sswp_lib.learn.loop import placed
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training
from sswp_lib.space import Genotype
from sswp_lib.space.ops import OPERATIONS


def is_compiled(model: nn.Module) -> set[bool]:
    """Return which there are among a model's operations: compiled ones, others."""
    dicts = [module for module in model.modules() if isinstance(module, nn.ModuleDict)]
    return {operation._compiled_call_impl is not None for each in dicts for operation in each.children()}


@pytest.fixture
def limits():
    """Of dynamo, put back afterwards."""
    own = torch._dynamo.config
    with own.patch(recompile_limit=own.recompile_limit, accumulated_recompile_limit=own.accumulated_recompile_limit):
        yield


def test_compiled_operations_compute_what_they_are_written_as(config, limits):
    """In float64, with their gradients; of those that share their code, one."""
    torch.manual_seed(0)
    names = ["max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"]
    written = nn.ModuleDict({name: OPERATIONS[name](4, 2, False, None) for name in names}).double()
    there = nn.ModuleList([copy.deepcopy(written)])
    compiled = placed(there, config.changed(**{"model.compiled": True}), "cpu")[0]
    assert is_compiled(there) == {True}
    x = torch.randn(5, 4, 9, 9, dtype=torch.float64).to(memory_format=torch.channels_last)
    for name in names:
        found = []
        for operation in (written[name], compiled[name]):
            given = x.clone().requires_grad_()
            y = operation(given)
            found.append([y, *torch.autograd.grad((y**3).sum(), [given, *operation.parameters()])])
        for ours, theirs in zip(*found, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9), name


def test_loops_compile_where_they_are_told_to(config, data, limits, monkeypatch):
    monkeypatch.setattr(loop, "_check_compiler", lambda device: None)
    for compiled in (False, True):
        own = config.changed(**{"model.compiled": compiled})
        assert is_compiled(Search(own, data).supernet) == {compiled}
        assert is_compiled(Training(own, data, Genotype.published("DARTS_V2", 3)).network) == {compiled}


def test_where_there_is_no_compiler_it_is_said_in_one_line(config, data, monkeypatch):
    def compiler(function):
        raise RuntimeError("Failed to find C++ compiler. Please specify via CXX environment variable.\n\nLong advice")

    loop._check_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.raises(
        InputError, match=r"model\.compiled is set, but .* find C\+\+ compiler.*compiled=false"
    ) as caught:
        Search(config.changed(**{"model.compiled": True}), data)
    assert "\n" not in str(caught.value)
    loop._check_compiler.cache_clear()


def test_whoever_computes_nothing_does_not_wait_for_the_compiler():
    """It takes as long to load as torch does; torch's own optimisers load it, but reading and drawing need none."""
    script = """
import sys
from sswp_lib import cli, config, learn, runs, paper, show, lab
from sswp_lib.learn.search import Search
from sswp_lib.show import comparisons, plots, widgets
print([name for name in sys.modules if name == "torch._dynamo"])
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
