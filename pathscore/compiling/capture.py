"""One evaluation of an objective, gradients included, as a graph of tensor operations.

    capture(elbo, model, guide, args, kwargs, parameters, scale) -> Capture

`make_fx` follows the objective through Pyro's handlers and through autograd on fake tensors, which have shapes and no
values: nothing is drawn, no state moves, and whatever depends on values (a Python branch) is refused. Every tensor from
outside (parameters, buffers, data of a closure) is an input of the graph by reference, so in-place changes are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_flatten, tree_unflatten

from pathscore.compiling.reading import Interception, Reading, Refusal
from pathscore.errors import PathscoreError
from pathscore.programs.places import places, tensors_in
from pathscore.programs.untouched import generators_in, is_number, lists_in, numbers_in, written_by


@dataclass(frozen=True)
class Capture:
    """A graph f(*tensors, *inputs) -> (numbers, valid, *gradients).

    tensors: the captured ones, by reference. written: those among them that a step changes in place.
    trained: the parameters that the gradients belong to, in order. numbers: the losses, then the Euclidean norm of the
    gradient before `scale`, float64. single: whether the objective reports one loss rather than a tuple.
    valid: whether every branch went the way that was assumed; only where `assumes`.
    """

    graph: GraphModule
    tensors: list[Tensor]
    written: list[Tensor]
    trained: list[Tensor]
    single: bool
    assumes: bool


def capture(
    elbo: Any,
    model: Callable,
    guide: Callable,
    args: tuple,
    kwargs: dict,
    parameters: Iterable[Tensor],
    scale: float = 1.0,
    unnamed: bool = False,
) -> Capture:
    """The graph of `elbo.loss_and_grads(model, guide, *args, **kwargs)`.

    The objective must have been evaluated once before, so that parameters exist and plans are made.
    parameters: leaves, of which those that the objective reaches get a gradient. scale: factor of the gradient.
    unnamed: give every other leaf that requires a gradient one too, as `backward()` does.

    Raises: Refusal for what cannot be one graph.
    """
    leaves, layout = tree_flatten((args, kwargs))
    kept, names = Kept(model, guide, *modules_of(elbo)), set(pyro.get_param_store().keys())
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    wanted = [p for p in parameters if p.requires_grad]
    shape: dict[str, Any] = {}
    seen = Interception()

    def evaluate(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = iter(inputs)
        own_args, own_kwargs = tree_unflatten([next(given) if isinstance(x, Tensor) else x for x in leaves], layout)
        with seen, pyro.validation_enabled(False):
            loss = elbo.loss_and_grads(model, guide, *own_args, **own_kwargs)
        losses = loss if isinstance(loss, tuple) else (loss,)
        if unnamed:
            named = {id(p) for p in wanted}
            wanted.extend(leaf for leaf in _leaves(seen.surrogates) if id(leaf) not in named)
        gradients = _gradients(seen.surrogates, wanted, scale)
        found = [g for g in gradients if g is not None]
        valid = [torch.stack(seen.assumptions).all()] if seen.assumptions else []
        shape.update(single=not isinstance(loss, tuple), assumes=bool(valid))
        shape["trained"] = [p for p, g in zip(wanted, gradients, strict=True) if g is not None]
        return _joined([*(_tensor(part) for part in losses), _norm(found, scale)]), *valid, *found

    try:
        graph = _traced(evaluate, tensors, seen)
    finally:
        seen.put_back()
        leaks, counted = kept.put_back()
        leaks += _new_parameters(names)
    _drop_unused_constants(graph)
    if _draws_apart(graph):
        raise Refusal("it draws from a torch.Generator of its own: leave generator= out")
    captured = _lift(graph)
    _require_repeatable(leaks, counted, captured.values())
    return Capture(graph, list(captured.values()), _written(graph.graph, captured), **shape)


def _new_parameters(names: set[str]) -> list[Leak]:
    """Take out of Pyro's store what was entered beside these names: fake tensors, like all that a trace makes."""
    store = pyro.get_param_store()
    made = set(store.keys()) - names
    for name in made:
        del store[name]
    return [Leak(name, False, None) for name in made]


def _require_repeatable(leaks: list[Leak], counted: str | None, captured: Iterable[Tensor]) -> None:
    """Raise Refusal where a run leaves something in Python that the next one reads: a graph would not."""
    read = {id(tensor) for tensor in captured}
    if assigned := [leak.name for leak in leaks if not leak.harmless(read)]:
        raise Refusal(f"it keeps what it computes by assignment ({assigned[0]}): change tensors in place, with copy_")
    if counted:
        raise Refusal(counted)


def _traced(evaluate: Callable, tensors: list[Tensor], seen: Interception) -> GraphModule:
    from torch.fx.experimental.proxy_tensor import make_fx  # takes long to import: only where something is captured

    try:
        return make_fx(evaluate, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(_reason(error, seen)) from error


def _reason(error: BaseException, seen: Interception) -> str:
    """What a tracer's exception says about the program, in one line."""
    name = type(error).__name__
    if "DataDependent" in name or "GuardOnDataDependent" in name:
        return "its course depends on the values of tensors (if, while, int() or bool() of a tensor)"
    if seen.took_whole_number:
        return "it goes by a whole number taken out of a tensor (.item(), a loop over a subsample)"
    lines = str(error).strip().splitlines()
    if isinstance(error, PathscoreError):
        return lines[0]
    return f"{name}: {lines[0][:160]}" if lines else name


def _leaves(surrogates: list[Tensor]) -> list[Tensor]:
    """The leaves that `backward()` would reach, in the order in which they are met, without those made on the way."""
    found, seen, waiting = [], set(), [s.grad_fn for s in surrogates if s.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and not isinstance(leaf, FakeTensor):
            found.append(leaf)
        waiting.extend(below for below, _ in node.next_functions if below is not None)
    return found


def _gradients(surrogates: list[Tensor], wanted: list[Tensor], scale: float) -> list[Tensor | None]:
    total = sum(s for s in surrogates if s.requires_grad)
    if not isinstance(total, Tensor):
        return [None] * len(wanted)
    seed = torch.full_like(total, scale)
    return list(torch.autograd.grad(total, wanted, seed, allow_unused=True))


def _norm(gradients: list[Tensor], scale: float) -> Tensor:
    squares = [g.square().sum() for g in gradients]
    return torch.stack([s.to(squares[0]) for s in squares]).sum().sqrt() / scale if squares else torch.zeros(())


def _joined(numbers: list[Tensor]) -> Tensor:
    """Numbers as one tensor, which is read back at once: every reading waits for a GPU."""
    return torch.stack([number.to(numbers[-1].device, torch.float64) for number in numbers])


def _tensor(loss: Any) -> Tensor:
    if isinstance(loss, Reading):
        return loss.tensor
    if isinstance(loss, Tensor):
        return loss.detach()
    return torch.tensor(float(loss), dtype=torch.float64)


def device_of(tensors: Iterable[Tensor]) -> torch.device:
    """Where a graph runs: on the device of the first tensor that is not in the processor's memory, if there is one."""
    devices = list(dict.fromkeys(t.device for t in tensors))
    return next((d for d in devices if d.type != "cpu"), torch.device("cpu"))


def _drop_unused_constants(graph: GraphModule) -> None:
    """Leave out constants that nothing reads: Pyro's plates make empty ones, in the processor's memory."""
    for node in reversed(list(graph.graph.nodes)):
        constant = node.op == "get_attr" or node.target is torch.ops.aten.lift_fresh_copy.default
        if constant and not node.users:
            graph.graph.erase_node(node)


def _draws_apart(graph: GraphModule) -> bool:
    """Whether a random operation is given a generator, which a graph takes for a constant."""
    held = [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    given = [x for node in graph.graph.nodes for x in (*node.args, *node.kwargs.values())]
    return any(isinstance(x, torch.Generator) for x in (*held, *given))


def _lift(graph: GraphModule) -> dict[Node, Tensor]:
    """Make every tensor that the graph holds an input of it, in front of the others."""
    nodes, first = graph.graph, next(iter(graph.graph.nodes))
    places: dict[int, Node] = {}
    tensors: dict[Node, Tensor] = {}
    held = [n for n in nodes.nodes if n.op == "get_attr"]
    for node in held:
        tensor = getattr(graph, node.target)
        if id(tensor) not in places:
            with nodes.inserting_before(first):
                place = places[id(tensor)] = nodes.placeholder(f"captured_{len(places)}")
            place.meta, tensors[place] = dict(node.meta), tensor
        node.replace_all_uses_with(places[id(tensor)])
    for node in held:  # only now: the first of all nodes, where there are no arguments, is one of them
        nodes.erase_node(node)
    graph.recompile()
    return tensors


def _written(nodes: Graph, captured: dict[Node, Tensor]) -> list[Tensor]:
    """The captured tensors that an operation of the graph changes in place, through views too."""
    found: dict[int, Tensor] = {}
    for node in nodes.nodes:
        given = written_by(node.target, node.args, node.kwargs) if hasattr(node.target, "_schema") else []
        for root in given:
            while isinstance(root, Node) and root.op == "call_function":
                root = root.args[0]
            if root in captured:
                found.setdefault(id(captured[root]), captured[root])
    return list(found.values())


class Leak(NamedTuple):
    """A name that was assigned during the trace. private: whether it is a module's own business; old: its value."""

    name: str
    private: bool
    old: Any

    def harmless(self, read: set[int]) -> bool:
        """Whether it is a cache: private, and overwritten before it is read, so that no step needs the last one's."""
        return self.private and not any(id(part) in read for part in tensors_in(self.old))


class Kept:
    """What programs keep in Python, to be put back after a trace, which leaves tensors without values there."""

    def __init__(self, *programs: Any) -> None:
        self.found = places(*programs)
        self.before = [(place, dict(place.values)) for place in self.found]
        self.numbers, self.lists = numbers_in(self.found), lists_in(self.found)
        self.generators = generators_in(self.found)

    def put_back(self) -> tuple[list[Leak], str | None]:
        """What was assigned, and what else of Python a graph would not do again."""
        moved = [f"it draws from {g.name}, a generator that is not torch's" for g in self.generators if g.moved()]
        counts = [
            f"it counts in Python ({place.owner}.{name}): keep the number in a tensor, and change it in place"
            for place, name, number in self.numbers
            if is_number(place.values.get(name)) and place.values[name] != number
        ]
        grown = [f"it adds to a list ({name})" for name, own, members in self.lists if len(own) != len(members)]
        for generator in self.generators:
            generator.put_back()
        return self._assigned(), next(iter((*counts, *grown, *moved)), None)

    def _assigned(self) -> list[Leak]:
        leaks, copies = [], {id(own): members for _, own, members in self.lists}
        for (owner, now), before in self.before:
            for name in [name for name, value in now.items() if _is_fake(value)]:
                old = before.get(name)
                leaks.append(Leak(f"{owner}.{name}", str(name).startswith("_"), copies.get(id(old), old)))
                del now[name]
            now.update({n: v for n, v in before.items() if n not in now or (is_number(v) and is_number(now[n]))})
        for _, own, members in self.lists:
            own[:] = members
        return leaks


def _is_fake(value: Any) -> bool:
    return any(isinstance(part, FakeTensor) for part in tensors_in(value))


def modules_of(*programs: Any) -> list[nn.Module]:
    """The modules behind programs, handlers taken off, and behind an objective's estimators."""
    found = [getattr(program, "estimators", None) for program in programs]
    found += [pyro.poutine.unwrap(program) for program in programs]
    found += [getattr(program, "__self__", None) for program in found]
    return [module for module in found if isinstance(module, nn.Module)]
