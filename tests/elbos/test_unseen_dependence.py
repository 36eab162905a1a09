"""A dependence that shows later in training than the first step is a cost of its site all the same, by dependency too.

Each program below has three bits b, whose sum the rest of the program depends on in a way that the first step does not
meet: its branch is not taken, its gate is shut. Then the parameter moves, or the gate opens. The mean of an estimate is
taken exactly: each of the 8 values of b is drawn once, and its gradient weighs q(b). So there is no noise, no false
alarm, and a bias of 1e-9 is found. The planted faults are dependences of the first step alone.
"""

import io
import itertools
import warnings
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

from pathscore.elbos.plan import Plan
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import Score
from pathscore.programs import marks

pytestmark = pytest.mark.usefixtures("float64")

VALUES = [torch.tensor(bits, dtype=torch.float64) for bits in itertools.product([0.0, 1.0], repeat=3)]
SHUT, OPEN = -9.0, 0.3


class Program:
    """q(b_i = 1) = sigmoid(logit); an observation of y whose mean is moved by `shift(b)`."""

    def __init__(self):
        self.logit = torch.full((3,), SHUT).requires_grad_()
        self.gate = torch.tensor(0.0)
        self.on = False

    def later(self):
        """What training does to the program."""
        with torch.no_grad():
            self.logit.fill_(OPEN)

    def shift(self, b):
        raise NotImplementedError

    def model(self):
        b = pyro.sample("b", dist.Bernoulli(0.3 * torch.ones(3)).to_event(1))
        pyro.sample("y", dist.Normal(self.shift(b), 1.0), obs=torch.tensor(2.0))

    def guide(self):
        return pyro.sample("b", dist.Bernoulli(logits=self.logit).to_event(1))


class Branch(Program):
    def shift(self, b):
        return torch.tensor(3.0 if b.sum() > 2 else 0.0)


class Number(Program):
    def shift(self, b):
        return torch.tensor(0.5 * max(b.sum().item() - 1, 0.0))


class Loop(Program):
    def shift(self, b):
        return sum((torch.tensor(0.7) for _ in range(int(b.sum()) // 2)), torch.zeros(()))


class Shape(Program):
    """The number of ones, as the size of a tensor, in a branch."""

    def shift(self, b):
        return torch.tensor(2.0 if b.nonzero().shape[0] > 1 else 0.0)


class Listed(Program):
    def shift(self, b):
        return torch.tensor([0.0, 0.0, 1.0, 2.5][int(sum(b.tolist()))])


class Table(Program):
    """Written into a tensor of the program's own."""

    def shift(self, b):
        table = torch.zeros(4)
        table[1:] = b * (b.sum() > 1)
        return table.sum()


class Where(Program):
    def shift(self, b):
        return torch.where(b.sum() > 1.5, 2.0 * b.sum(), torch.zeros(()))


class Attribute(Program):
    """A switch of the program that opens as training goes on."""

    def later(self):
        super().later()
        self.on = True

    def shift(self, b):
        return b.sum() if self.on else torch.zeros(())


class Gate(Program):
    """A learned gate, read as a number."""

    def later(self):
        super().later()
        self.gate += 1.5

    def shift(self, b):
        return self.gate * b.sum() if self.gate > 0 else torch.zeros(())


class Law(Attribute):
    """The law of a later draw comes to depend on the bits, and with it what that draw decides."""

    def model(self):
        b = pyro.sample("b", dist.Bernoulli(0.3 * torch.ones(3)).to_event(1))
        c = pyro.sample("c", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(c, 1.0), obs=torch.tensor(2.0))
        pyro.factor("f", self.shift(b) * c)

    def guide(self):
        b = super().guide()
        pyro.sample("c", dist.Bernoulli(torch.sigmoid(self.shift(b) - 1)))


PROGRAMS = (Branch, Number, Loop, Shape, Listed, Table, Where, Attribute, Gate, Law)


class Draws(Score):
    """The score function at values that are given, in place of draws."""

    values: ClassVar[dict[str, torch.Tensor]] = {}

    def sample(self, fn):
        drawn, noise = super().sample(fn)
        return self.values["b" if fn.event_shape else "c"].expand(drawn.shape).clone(), noise


def exact_mean(program, elbo):
    """Σ q(b, c) of the gradient at (b, c), over all values."""
    total = torch.zeros(3)
    law = dist.Bernoulli(logits=program.logit.detach()).to_event(1)
    for b, c in itertools.product(VALUES, torch.tensor([0.0, 1.0]).double()):
        Draws.values = {"b": b, "c": c}
        program.logit.grad = None
        elbo.loss_and_grads(program.model, program.guide)
        with torch.no_grad():
            p = torch.sigmoid(program.shift(b) - 1) if isinstance(program, Law) else torch.tensor(0.5)
            weight = law.log_prob(b).exp() * (p if c else 1 - p)
        total -= weight * program.logit.grad
    return total


def exact_gradient(program):
    """The gradient of the sum of q (log p − log q), run at one value after the other."""
    total = torch.zeros(())
    for b, c in itertools.product(VALUES, torch.tensor([0.0, 1.0]).double()):
        given = poutine.condition(program.guide, data={"b": b, "c": c})
        q = poutine.trace(given).get_trace()
        p = poutine.trace(poutine.condition(program.model, data={"b": b, "c": c})).get_trace()
        log_q = q.log_prob_sum()
        total = total + log_q.exp() * (p.log_prob_sum() - log_q) / (1 if "c" in q else 2)
    return torch.autograd.grad(total, program.logit)[0]


def bias(cls, credit="graph"):
    torch.manual_seed(0)
    program = cls()
    elbo = SiteELBO({name: Draws() for name in ("bc" if cls is Law else "b")}, credit=credit, max_plate_nesting=0)
    Draws.values = {"b": torch.zeros(3), "c": torch.tensor(0.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # credit is given to all where marks are lost
        elbo.loss_and_grads(program.model, program.guide)
        program.later()
        found = exact_mean(program, elbo)
    return (found - exact_gradient(program)).abs().max().item()


@pytest.mark.parametrize("cls", PROGRAMS)
@pytest.mark.parametrize("credit", ["plate", "graph"])
def test_the_mean_is_the_exact_gradient(cls, credit):
    assert bias(cls, credit) < 1e-9


@pytest.mark.parametrize("cls", [Attribute, Gate, Law])
def test_dependences_of_the_first_step_alone_are_caught(monkeypatch, cls):
    monkeypatch.setattr(Plan, "widen", lambda *args: None)
    assert bias(cls) > 1e-2


@pytest.mark.parametrize("cls", [Branch, Number, Loop, Shape, Listed, Table])
def test_a_value_that_leaves_tensors_unnoticed_is_caught(monkeypatch, cls):
    def blind(out, of, lost, given):
        return right(out, of, set(), given)

    right = marks._hand_on
    monkeypatch.setattr(marks, "_hand_on", blind)
    monkeypatch.setattr(marks, "SHAPED", frozenset())
    assert bias(cls) > 1e-2


def test_a_value_that_a_program_keeps_is_saved_as_a_plain_tensor():
    kept = marks.marked(torch.ones(2), frozenset({"z"}), set()) * torch.ones(2, requires_grad=True)
    file = io.BytesIO()
    torch.save({"buffer": kept.detach()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["buffer"]
    assert type(loaded) is torch.Tensor and torch.equal(loaded, torch.ones(2))
