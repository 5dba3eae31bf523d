"""What the files of PyTorch cases share: the device, the seed, how a result becomes bytes.

`LIGHTOS_CASES_DEVICE=cpu` runs the cases' own logic on a machine without a GPU; what needs one is skipped there.
"""

from __future__ import annotations

import os

import torch

from harness import Skip, register

DEVICE = os.environ.get("LIGHTOS_CASES_DEVICE", "cuda")


def seeded() -> None:
    """The same state before each case, whatever ran before it in this process."""
    torch.manual_seed(1234)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    torch.set_grad_enabled(True)


def torch_register():
    return register(seeded)


def need_gpu() -> None:
    if DEVICE != "cuda":
        raise Skip("needs a GPU")


def to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
