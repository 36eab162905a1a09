"""Precision of float32 matrix products: `with matmul_precision("medium"): …`, restored on leaving.

"highest" keeps float32. "high" may use TensorFloat32 or three bfloat16 products. "medium" rounds the factors to
bfloat16 where the processor multiplies those faster (on x86: AMX or AVX-512 BF16), and sums in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 matrix products inside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
