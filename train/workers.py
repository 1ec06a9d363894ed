"""What the workers of a training run do together: add up, agree, average gradients.

One worker is alone.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

Array = npt.NDArray[Any]


class Workers:
    """The process group of this run.

    Every method must be called by all workers, in the same order.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._device = device or torch.device("cpu")
        self.rank = dist.get_rank() if self._together else 0
        self.count = dist.get_world_size() if self._together else 1

    def sum(self, array: Array) -> Array:
        """Sum over the workers, float64 or float32 as given (integers as float64)."""
        return self._reduce(array, dist.ReduceOp.SUM)

    def min(self, array: Array) -> Array:
        """Smallest over the workers, element by element."""
        return self._reduce(array, dist.ReduceOp.MIN)

    def max(self, array: Array) -> Array:
        """Largest over the workers, element by element."""
        return self._reduce(array, dist.ReduceOp.MAX)

    def gather(self, mine: Any) -> list[Any]:
        """What every worker has, by rank."""
        if not self._together:
            return [mine]
        out: list[Any] = [None] * self.count
        dist.all_gather_object(out, mine)
        return out

    def average_gradients(self, module: nn.Module) -> None:
        """Mean of the gradients over the workers, in one message."""
        if not self._together:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for g in gradients:
            g.copy_(flat[start : start + g.numel()].view_as(g))
            start += g.numel()

    def _reduce(self, array: Array, op: Any) -> Array:
        if not self._together:
            return array
        kind = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=kind)).to(self._device)
        dist.all_reduce(tensor, op=op)
        return tensor.cpu().numpy()
