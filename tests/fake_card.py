"""A graphics card without one: tensors on "cuda" have shapes, types and a device, but no values.

Tensors on the CPU are real beside them, so that a loop draws what it draws and runs as it is. What a real card would
refuse or do slowly shows: operands on two devices, and every wait for a value of the card.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ASKED = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
SHAPED_BY_VALUES = (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)


class Card(TorchDispatchMode):
    """Counts what goes between the devices.

    Attributes:
        waits: one name for each time that the CPU asked for a value of the card; it is told 0.
        sent: numbers copied to the card.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        self.sent = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        here = not any(isinstance(t, FakeTensor) for t in tensors) and all(d.type == "cpu" for d in devices)
        if here:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func in ASKED or func in SHAPED_BY_VALUES:
            self.waits.append(str(func))
            return False if func in ASKED[1:] else 0
        if func in INDEXED and any(not isinstance(t, FakeTensor) for t in tensors if t.dim()):
            raise RuntimeError(f"{func}: tensors on the card and on the CPU")  # real ones are copied, after a wait
        if any(d.type == "cpu" for d in devices):
            self.waits.append(str(func))
            with unset_fake_temporarily():
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if devices:
            self.sent += sum(t.numel() for t in tensors if not isinstance(t, FakeTensor))
        return func(*args, **kwargs)


@contextmanager
def fake_card():
    """Within this, "cuda" is a card without values; yields its `Card`."""
    with ExitStack() as stack:
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        patch = lambda where, name, new: stack.enter_context(mock.patch.object(where, name, new))  # noqa: E731
        patch(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)  # or autocast would be off
        patch(torch.cuda, "is_bf16_supported", lambda *_: True)
        to_list, swap = Tensor.tolist, torch.utils.swap_tensors
        patch(FakeTensor, "tolist", lambda t: to_list(t.cpu()))  # its own asks for every number by itself
        # modules that are moved to where they are: a fake parameter that something refers to weakly cannot be swapped
        patch(torch.utils, "swap_tensors", lambda a, b: None if a.device == b.device else swap(a, b))
        patch(Tensor, "backward", _backward)
        patch(torch.autograd, "grad", _grad)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Card())


def _backward(loss: Tensor) -> None:
    for leaf, grad in _gradients(loss).items():
        leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def _grad(loss: Tensor, leaves: Tensor | list[Tensor], **_) -> tuple[Tensor, ...]:
    found = _gradients(loss)
    return tuple(found[leaf] for leaf in ([leaves] if isinstance(leaves, Tensor) else leaves))


@torch.no_grad()
def _gradients(loss: Tensor) -> dict[Tensor, Tensor]:
    """Return each leaf's gradient, node by node: torch's own engine needs the card's streams."""
    waiting, stack = {loss.grad_fn: 0}, [loss.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                if node not in waiting:
                    stack.append(node)
                waiting[node] = waiting.get(node, 0) + 1
    given, ready, found = {loss.grad_fn: {0: torch.ones_like(loss)}}, [loss.grad_fn], {}
    while ready:
        node = ready.pop()
        inputs = given.pop(node, {})
        kinds = [meta.dtype for meta in node._input_metadata]
        grads = [inputs[i].to(kind) if i in inputs else None for i, kind in enumerate(kinds)]
        if hasattr(node, "variable"):
            found[node.variable] = grads[0]
            continue
        outputs = node.apply(*grads) if hasattr(node, "apply") else node(*grads)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for (later, number), grad in zip(node.next_functions, outputs, strict=False):  # last: arguments, no tensors
            if later is None:
                continue
            slots = given.setdefault(later, {})
            if grad is not None:
                grad = grad.sum_to_size(list(later._input_metadata[number].shape))  # of a number that scaled maps, say
                slots[number] = slots[number] + grad if number in slots else grad
            waiting[later] -= 1
            if not waiting[later]:
                ready.append(later)
    return found
