"""Rewrites of a captured graph before TorchInductor builds it: `rewrite(graph, device)`, in place.

A table maps an operation to a function of its node that returns an equal expression, or None to leave it. Those in
`DRAWS` are needed anywhere: the built graph would draw other numbers. Those in `REWRITES` are for the CPU: each equals
the operation up to rounding, and is here because it was measured (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten

LANES = 16
"""Columns of a product that one step of the CPU's matrix multiplication fills: float32 numbers in 512 bits."""

TANH_BOUND = 7.90531110763549805
"""Where the rational function below reaches 1 in float32."""
TANH_ODD = (
    4.89352455891786e-03,
    6.37261928875436e-04,
    1.48572235717979e-05,
    5.12229709037114e-08,
    -8.60467152213735e-11,
    2.00018790482477e-13,
    -2.76076847742355e-16,
)
TANH_EVEN = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)


def rewrite(graph: GraphModule, device: str) -> None:
    """Apply every rewrite for a kind of device to a graph whose nodes carry fake tensors in `meta["val"]`."""
    keep_order_of_draws(graph)
    table = DRAWS | (REWRITES if device == "cpu" else RECORDABLE)
    for node in list(graph.graph.nodes):
        expression = table.get(node.target)
        if expression is None:
            continue
        with graph.graph.inserting_before(node):
            replacement = expression(node)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            graph.graph.erase_node(node)
    graph.recompile()


def keep_order_of_draws(graph: GraphModule) -> None:
    """Have random operations read tensors with the strides that they were traced with.

    They fill memory in its order: under another layout, which TorchInductor is free to choose, the same random numbers
    would go to other elements than eagerly.
    """
    from torch._inductor.inductor_prims import force_stride_order  # takes seconds to import

    for node in list(graph.graph.nodes):
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        for given in node.all_input_nodes:
            if 0 in given.meta["val"].stride():  # expanded: what is drawn for it is laid out anew
                continue
            with graph.graph.inserting_before(node):
                pinned = graph.graph.call_function(force_stride_order, (given, given.meta["val"].stride()))
            pinned.meta["val"] = given.meta["val"]
            node.replace_input_with(given, pinned)


def rational_tanh(node: Node) -> Node | None:
    """tanh x = x P(x²) / Q(x²) in float32, to 4e-7 relative: a fifth of the time of the library's function.

    References: Eigen's `generic_fast_tanh_float`, which XLA uses as well.
    """
    if node.meta["val"].dtype is not torch.float32:
        return None
    x = _call(node, aten.clamp.default, node.args[0], -TANH_BOUND, TANH_BOUND)
    square = _call(node, aten.mul.Tensor, x, x)
    above = _call(node, aten.mul.Tensor, _polynomial(node, square, TANH_ODD), x)
    return _call(node, aten.div.Tensor, above, _polynomial(node, square, TANH_EVEN))


def apart_from_bias(node: Node) -> Node | None:
    """x W + b as a product and a difference, x W − (−b): what follows takes the bias along in its own loop.

    As a sum TorchInductor would put it back; its single call first copies b into every row.
    """
    if node.kwargs or node.args[0].meta["val"].ndim > 1:  # type: ignore[union-attr]  # a Node, by its operation
        return None
    bias, left, right = node.args
    product = _call(node, aten.mm.default, left, right)
    product.meta["val"] = node.meta["val"]
    return _call(node, aten.sub.Tensor, narrow_product(product) or product, _call(node, aten.neg.default, bias))


def narrow_product(node: Node) -> Node | None:
    """A B as (Bᵀ Aᵀ)ᵀ where B has few columns, not a multiple of `LANES`: up to ten times as fast with MKL."""
    rows, columns = node.meta["val"].shape
    if columns == 1 or columns % LANES == 0 or rows <= columns:
        return None
    left, right = (_call(node, aten.t.default, factor) for factor in node.args)
    flat = _call(node, aten.t.default, _call(node, aten.mm.default, right, left))
    # The strides that the rest of the graph was traced with.
    return node.graph.call_function(aten.clone.default, (flat,), {"memory_format": torch.contiguous_format})


def _polynomial(node: Node, x: Node, coefficients: tuple[float, ...]) -> Node:
    """Horner's rule, lowest power first."""
    *lower, top = coefficients
    total = _call(node, aten.mul.Tensor, x, top)
    for coefficient in lower[:0:-1]:
        total = _call(node, aten.mul.Tensor, _call(node, aten.add.Tensor, total, coefficient), x)
    return _call(node, aten.add.Tensor, total, lower[0])


def _call(node: Node, operation: Any, *args: Any) -> Node:
    return node.graph.call_function(operation, args)


def eager_bernoulli(node: Node) -> Node:
    """Bernoulli(p) as eager torch draws it, where TorchInductor would compare p with float32 uniforms of its own."""
    return _call(node, aten.bernoulli.Tensor, node.args[0], node.args[0])


DRAWS: dict[Any, Callable[[Node], Node | None]] = {aten.bernoulli.default: eager_bernoulli}


def unchecked_normal(node: Node) -> Node | None:
    """Normal(μ, σ) as μ + σ ε, the same numbers: on a GPU torch first reads back whether every σ is positive."""
    value = node.meta["val"]
    options = {"dtype": value.dtype, "device": value.device}
    noise = node.graph.call_function(aten.randn.default, (list(value.shape),), options)
    noise.meta["val"] = value
    mean, scale = node.args[0], node.args[1]
    return _call(node, aten.add.Tensor, _call(node, aten.mul.Tensor, noise, scale), mean)


RECORDABLE: dict[Any, Callable[[Node], Node | None]] = {aten.normal.Tensor_Tensor: unchecked_normal}
"""What a GPU can record in place of an operation that reads a value back."""

REWRITES: dict[Any, Callable[[Node], Node | None]] = {
    aten.tanh.default: rational_tanh,
    aten.addmm.default: apart_from_bias,
    aten.mm.default: narrow_product,
}
