"""CrossPath against a loop over images; its queue, its teacher, and what becomes of it without negatives."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy_space import TOY, images

from sswp_lib.config import InputError
from sswp_lib.learn.crosspath import CrossPath, between_images, collapse, unit
from sswp_lib.space.ops import batch_norms

DIM, IMAGES = 6, 5
ARMS = {
    "all": {},
    "own path": {"cross_path": False},
    "no teacher": {"ema": 0.0},
    "own path, no teacher": {"cross_path": False, "ema": 0.0},
    "in batch": {"in_batch": True},
    "own path, in batch, no teacher": {"cross_path": False, "in_batch": True, "ema": 0.0},
    "no negatives": {"negatives": False},
    "own path, no negatives": {"cross_path": False, "negatives": False},
    "nothing": {"ema": 0.0, "negatives": False},
}


def built(queue: int = 7, **arm) -> tuple[CrossPath, nn.Module]:
    """The objective and a supernet of the toy space in double precision, the teacher away from the student."""
    torch.manual_seed(0)
    objective = CrossPath(DIM, torch.Generator().manual_seed(1), **{"temperature": 0.3, "queue": queue} | arm)
    model = TOY.supernet()
    model.head = objective.head(model.num_features, 10)
    model, objective = model.double(), objective.double()
    for layer in batch_norms(model):
        layer.momentum = None
    objective.attach(model)
    move(model)
    return objective, model


@torch.no_grad()
def move(model: nn.Module) -> None:
    """Change every parameter: stands for a step."""
    for p in model.parameters():
        p.add_(0.5 * torch.randn_like(p))


def step(seed: int = 0):
    """The four views and the two paths of a step."""
    one, two = TOY.draw_two(torch.Generator().manual_seed(seed))
    return [images(IMAGES, seed=10 * seed + k) for k in range(4)], TOY.paths(one), TOY.paths(two)


def loop_over_images(objective, model, teacher, views, one, two) -> torch.Tensor:
    """Equation (4), image by image and negative by negative."""
    q0, k0, q1, k1 = views
    z_i, z_j = model(q0, one), model(q1, two)
    with torch.no_grad():
        t_i, t_j = teacher(k0, one), teacher(k1, two)
    length_1 = lambda v: v / v.square().sum().sqrt()  # noqa: E731
    total = 0
    for n in range(IMAGES):
        for z, positive in [(z_i, t_j), (z_j, t_i)] if objective.cross_path else [(z_i, t_i), (z_j, t_j)]:
            z_n = length_1(z[n])
            agreement = z_n @ length_1(positive[n])
            if objective.queue is None:
                total = total - agreement
                continue
            above, others = torch.exp(agreement / 0.3), list(objective.queue)
            others += [length_1(positive[m]) for m in range(IMAGES) if m != n] if objective.in_batch else []
            total = total - torch.log(above / (above + sum(torch.exp(z_n @ row / 0.3) for row in others)))
    return total / IMAGES


def gradients(loss: torch.Tensor, model: nn.Module) -> list[torch.Tensor | None]:
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_loss_and_gradient_equal_a_loop_over_images(arm):
    """With a queue that earlier steps have filled in part."""
    objective, model = built(**arm)
    for seed in (1, 2):
        if objective.queue is None or seed == 1:
            objective(model, step(seed)[0], None, *step(seed)[1:])
            objective.follow(model)
            move(model)
    views, *paths = step()
    expected = loop_over_images(objective, model, objective.teacher or model, views, *paths)
    loss, metrics = objective(model, views, None, *paths)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert set(metrics) == {"accuracy", "cosine"} and loss.shape == ()
    found, wanted = gradients(loss, model), gradients(expected, model)
    assert [g is None for g in found] == [g is None for g in wanted]
    for one, other in zip(found, wanted, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    ran = [name for (name, _), g in zip(model.named_parameters(), found, strict=True) if g is not None]
    assert len({name.split(".")[3] for name in ran if name.startswith("cells")}) >= 2


@pytest.mark.parametrize("queue", [5, 7, 10, 23])
def test_the_queue_is_first_in_first_out_of_the_averages(queue):
    """The newest N rows are (z'_i + z'_j) / 2 of the teacher before it follows, shorter than 1; what is older moves on
    and out. A loss alone changes nothing.
    """
    objective, model = built(queue)
    expected = objective.queue.clone()
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(queue, dtype=torch.float64))
    for seed in range(4):
        views, *paths = step(seed)
        with torch.no_grad():
            keys = [F.normalize(objective.teacher(views[k], paths[k // 2]), dim=1) for k in (1, 3)]
        objective(model, views, None, *paths)
        assert torch.equal(objective.queue, expected)
        objective.follow(model)
        expected = torch.cat([(keys[0] + keys[1]) / 2, expected])[:queue]
        torch.testing.assert_close(objective.queue, expected)
        assert (objective.queue[:IMAGES].norm(dim=1) < 0.999).any()
        move(model)


def test_the_queues_first_rows_are_of_the_generator():
    rows = [CrossPath(DIM, torch.Generator().manual_seed(seed), queue=3000).queue for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert float(rows[0].mean(dim=0).norm()) < 0.1  # in all directions


@pytest.mark.parametrize("ema", [0.0, 0.5, 1.0])
def test_the_teacher_follows_in_all_its_weights_once_a_step(ema):
    """0: it is the student; 1: it stays at its start; between, equation (2), for what a step did not run too."""
    objective, model = built(ema=ema)
    if ema == 0:
        assert objective.teacher is None and set(objective.state_dict()) == {"queue"}
        return
    before, buffers = copy.deepcopy(objective.teacher), dict(objective.teacher.named_buffers())
    kept = {name: t.clone() for name, t in buffers.items()}
    for p, q in zip(before.parameters(), model.parameters(), strict=True):
        assert not torch.equal(p, q)
    loss, _ = objective(model, step()[0], None, *step()[1:])
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    objective.follow(model)
    student = dict(model.named_parameters())
    for (name, old), new in zip(before.named_parameters(), objective.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, ema * old + (1 - ema) * student[name])
        assert ema < 1 or torch.equal(new, old)
    assert all(torch.equal(t, kept[name]) for name, t in buffers.items())


def test_the_teacher_starts_as_the_student_and_is_another_module():
    objective = CrossPath(DIM, torch.Generator(), queue=5)
    model = TOY.supernet()
    model.head = objective.head(model.num_features, 10)
    objective.attach(model)
    own = dict(objective.teacher.named_parameters())
    assert all(torch.equal(own[name], p) and own[name] is not p for name, p in model.named_parameters())
    assert [type(layer).__name__ for layer in model.head] == ["Linear", "ReLU", "Linear"]
    assert (model.head[0].out_features, model.head[2].out_features) == (model.num_features, DIM)


def test_queue_and_teacher_are_part_of_its_state():
    objective, model = built()
    objective(model, step()[0], None, *step()[1:])
    objective.follow(model)
    other, _ = built()
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.queue, objective.queue)
    assert all(map(torch.equal, other.teacher.parameters(), objective.teacher.parameters()))
    assert not torch.equal(other.queue, built()[0].queue)


class Given(nn.Module):
    """Gives out the same outputs, whatever the images: z_i, z_j, z'_i, z'_j."""

    def __init__(self, *outputs: torch.Tensor):
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, x, paths):
        return next(self.outputs)


def test_what_it_says_beside_the_loss():
    """z_i of four images against z'_j of them: three are nearest to their own."""
    z_i, targets = torch.eye(4), torch.eye(4)[[0, 1, 2, 2]]
    objective = CrossPath(4, torch.Generator(), ema=0.0, queue=8)
    _, metrics = objective(Given(3 * z_i, z_i, z_i, 2 * targets), [z_i] * 4, None, None, None)
    assert float(metrics["accuracy"]) == 0.75 and float(metrics["cosine"]) == 0
    _, metrics = objective(Given(*[-torch.ones(4, 4)] * 4), [z_i] * 4, None, None, None)
    assert float(metrics["cosine"]) == pytest.approx(1)


@pytest.mark.parametrize("negatives", [True, False])
def test_whose_output_is_the_positive(negatives):
    """With known outputs: along path i the student agrees with the teacher's j, along j with its i; or each with its
    own.
    """
    e = torch.eye(4)
    outputs = [e[[0]], e[[1]], e[[1]], 5 * e[[0]]]  # z_i = z'_j, z_j = z'_i
    for cross_path, agreement in ((True, 1.0), (False, 0.0)):
        objective = CrossPath(4, torch.Generator(), 0.5, 0.0, 2, cross_path, negatives)
        if negatives:
            objective.queue.copy_(e[2:])
        loss, _ = objective(Given(*outputs), outputs, None, None, None)
        expected = math.log(1 + 2 * math.exp(-agreement / 0.5)) if negatives else -agreement
        assert float(loss) == pytest.approx(2 * expected)


@pytest.mark.parametrize("negatives", [True, False])
def test_the_loss_is_computed_in_float32_under_autocast(negatives):
    outputs = [torch.randn(6, 8, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    make = lambda: CrossPath(8, torch.Generator().manual_seed(0), ema=0.0, queue=12, negatives=negatives)  # noqa: E731
    plain, _ = make()(Given(*outputs), outputs, None, None, None)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = make()(Given(*outputs), outputs, None, None, None)
        halved, _ = make()(Given(*[z.bfloat16() for z in outputs]), outputs, None, None, None)
    assert inside.dtype == halved.dtype == torch.float32 and torch.equal(plain, inside)
    torch.testing.assert_close(halved, plain, rtol=0.05, atol=0.05)


def test_collapse_of_known_outputs():
    alike, basis = torch.ones(5, 8) * torch.arange(1.0, 6)[:, None], torch.eye(8)
    assert collapse(alike) == pytest.approx({"cosine": 1, "spread": 0}, abs=1e-9)
    assert collapse(basis)["cosine"] == 0
    assert collapse(torch.cat([alike, -alike]))["cosine"] == pytest.approx(1)  # one direction, both ways
    around = collapse(torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)))
    assert around["spread"] == pytest.approx(1, abs=0.02)
    assert around["cosine"] == pytest.approx(math.sqrt(2 / (16 * math.pi)), rel=0.05)
    z = unit(torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    pairs = [abs(float(z[a] @ z[b])) for a in range(7) for b in range(7) if a != b]
    assert float(between_images(z)) == pytest.approx(sum(pairs) / 42)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (2, 2, 2)])
def test_collapse_needs_two_images(shape):
    with pytest.raises(InputError, match="expected \\(N, D\\)"):
        collapse(torch.zeros(shape))


class TwoWays(nn.Module):
    """A layer for either path, and the head."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.ways, self.head = nn.ModuleList([nn.Linear(12, 16) for _ in range(2)]), head

    def forward(self, x, path):
        return self.head(F.relu(self.ways[path](x)))


def learnt(**arm) -> tuple[dict, dict]:
    """Return the collapse of both paths' outputs before and after 200 steps on 128 points seen with a little noise."""
    torch.manual_seed(0)
    objective = CrossPath(8, torch.Generator().manual_seed(1), ema=0.9, queue=32, **arm)
    model = TwoWays(objective.head(16, 2))
    objective.attach(model)
    points, optimizer = torch.randn(128, 12), torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    both = lambda: collapse(torch.cat([model(points, way) for way in (0, 1)]).detach())  # noqa: E731
    before = both()
    for _ in range(200):
        x = points[torch.randperm(128)[:16]]
        loss, _ = objective(model, [x + 0.1 * torch.randn_like(x) for _ in range(4)], None, 0, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.follow(model)
    return before, both()


def test_without_negatives_the_outputs_collapse():
    """All images' outputs become one; with negatives they spread over the sphere, further than at the start. (At higher
    rates the first steps bring all together in either case, and negatives take hundreds of steps to part them.)
    """
    start, kept = learnt()
    same, lost = learnt(negatives=False)
    assert same == start and 0.2 < start["spread"] < 0.8
    assert lost["cosine"] > 0.99 and lost["spread"] < 0.1
    assert kept["cosine"] < 0.7 and kept["spread"] > 0.7
