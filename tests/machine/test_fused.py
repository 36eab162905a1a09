"""The optimisers' kernels called directly: the numbers of `Optimizer.step()`, to the bit."""

import pytest
import torch

from pathscore.machine.fused import KERNELS, fused_kernel
from pathscore.svi.joint_optim import JointOptim

SETTINGS = {
    "adam": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd-plain": (torch.optim.SGD, {"dampening": 0.0}),
}
SHAPES = ((3,), (4, 2), (), (5,))
TYPES = (torch.float32, torch.float64, torch.float32, torch.float32)


def parameters():
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=generator).to(t) for s, t in zip(SHAPES, TYPES, strict=True)]
    return [p.requires_grad_() for p in made]


def gradients(step):
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(s, generator=generator).to(t) for s, t in zip(SHAPES, TYPES, strict=True)]


def by_torch(cls, options, steps, joins=3):
    """Steps of torch's own optimiser, in which the last parameter joins late and the rate falls."""
    own = parameters()
    optimizer = cls(own[:3], lr=0.1, fused=True, **options)
    for step in range(steps):
        if step == joins:
            optimizer.add_param_group({"params": own[3:]})
        for p, g in zip(own[: 3 + (step >= joins)], gradients(step), strict=False):
            p.grad = 0.5 * g
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step)
        optimizer.step()
    return own


def by_kernel(cls, options, steps, joins=3, fault=lambda optimizer: None):
    own = parameters()
    optim = JointOptim(lambda group: cls(group, lr=0.1, fused=True, **options), schedule=lambda taken: 1 / (1 + taken))
    optim.adopt([(f"p{i}", p) for i, p in enumerate(own[:3])])
    for step in range(steps):
        if step == joins:
            optim.adopt([("p3", own[3])])
            fault(optim.torch_optim)
        count = 3 + (step >= joins)
        optim.update(own[:count], gradients(step)[:count], factor=0.5)
    return own, optim


@pytest.mark.parametrize("name", SETTINGS)
def test_the_kernel_takes_the_steps_of_the_optimiser(name):
    cls, options = SETTINGS[name]
    own, optim = by_kernel(cls, options, 8)
    assert optim._kernel is not None  # not the usual step
    for ours, theirs in zip(own, by_torch(cls, options, 8), strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_a_count_that_starts_anew_is_noticed():
    """The check above fails when parameters that join others lose their count of steps."""

    def forget(optimizer):
        for state in optimizer.state.values():
            state["step"] = torch.zeros_like(state["step"])

    cls, options = SETTINGS["adam"]
    own, _ = by_kernel(cls, options, 8, fault=forget)
    assert not all(map(torch.equal, own, by_torch(cls, options, 8)))


def test_each_parameter_keeps_its_own_count():
    _, optim = by_kernel(*SETTINGS["adam"], 8)
    saved = optim.get_state()["by_name"]
    assert {name: state["step"].item() for name, state in saved.items()} == {"p0": 8, "p1": 8, "p2": 8, "p3": 5}


def test_optimisers_set_up_otherwise_take_their_usual_step():
    """amsgrad keeps a third moment, a hook wants to be called, `fused=False` is a wish: none has a kernel here."""
    for options in ({"amsgrad": True, "fused": True}, {"fused": False}):
        own = parameters()
        optimizer = torch.optim.Adam(own, lr=0.1, **options)
        for step in range(3):
            assert not fused_kernel(optimizer, own)(gradients(step), 1.0)
    hooked, called = torch.optim.Adam(own, lr=0.1, fused=True), []
    hooked.register_step_post_hook(lambda *_: called.append(1))
    for step in range(3):
        assert not fused_kernel(hooked, own)(gradients(step), 1.0)
    assert len(called) == 3 and torch.optim.RAdam not in KERNELS
