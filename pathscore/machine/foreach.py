"""One call for all gradients: `gradient_norm(gradients) -> float`, `scale_gradients(gradients, factor)` in place."""

import torch
from torch import Tensor

# One call for all tensors; torch exports these operations under no public name.
_mul = torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage]  # no public name
_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]  # no public name


def scale_gradients(gradients: list[Tensor], factor: float) -> None:
    """Multiply all gradients by a number, in place."""
    if gradients and factor != 1.0:
        _mul(gradients, factor)


def gradient_norm(gradients: list[Tensor]) -> float:
    """Euclidean norm of all gradients together, in float64 where the squares overflow the gradients' own type."""
    if not gradients:
        return 0.0
    norms = _norm(gradients)
    alike = all(norm.dtype is norms[0].dtype for norm in norms)
    total = torch.linalg.vector_norm(torch.stack(norms if alike else [norm.to(norms[0]) for norm in norms])).item()
    if total != total or total != float("inf"):
        return total
    return sum(g.double().square().sum().item() for g in gradients) ** 0.5
