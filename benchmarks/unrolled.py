"""Several steps in one graph, to measure what this would save: `unrolled(capture, steps) -> GraphModule`.

Every step after the first reads the parameters that the previous one updated by gradient descent, which costs one more
fused element-wise operation. Adam would cost more.
"""

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from pathscore.compiling.capture import Capture

RATE = 1e-5


def unrolled(capture: Capture, steps: int) -> GraphModule:
    """The captured graph `steps` times in a row; it returns the losses, then the updated parameters."""
    nodes, new = list(capture.graph.graph.nodes), Graph()
    inputs = [node for node in nodes if node.op == "placeholder"]
    places: dict[Node, Any] = {node: new.node_copy(node) for node in inputs}
    order = {id(tensor): node for tensor, node in zip(capture.tensors, inputs, strict=False)}
    trained = [order[id(parameter)] for parameter in capture.trained]
    losses = []
    for _ in range(steps):
        made = dict(places)
        for node in nodes:
            if node.op == "output":
                results = [made[result] for result in node.args[0]]
            elif node.op != "placeholder":
                made[node] = new.node_copy(node, made.__getitem__)
        losses.append(results[0])
        for place, gradient in zip(trained, results[-len(trained) :], strict=True):
            move = new.call_function(torch.ops.aten.mul.Tensor, (gradient, RATE))
            places[place] = new.call_function(torch.ops.aten.sub.Tensor, (places[place], move))
    new.output((*losses, *(places[node] for node in trained)))
    return GraphModule(capture.graph, new)
