"""tinygrad programs: one per name, the result printed as JSON, floats by their bits.

tinygrad talks to the driver through ctypes: NVRTC or its own PTX writer makes the code, parameters travel packed in
`extra`, and TinyJit builds CUDA graphs node by node. `python tiny.py NAME` runs one program; each checks itself
against numpy.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from tinygrad import Device, Tensor, TinyJit, dtypes, nn
from tinygrad.helpers import Context

SEED = 7


def bits(array: np.ndarray) -> list[int]:
    """The bit patterns of a result, so that comparisons of two runs are exact."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{flat.dtype.itemsize}").tolist()


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED + sum(shape)).standard_normal(shape).astype(np.float32)


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> list[int]:
    np.testing.assert_allclose(got.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance)
    return bits(got)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def matmul():
    a, b = values(48, 40), values(40, 56)
    return close((Tensor(a) @ Tensor(b)).numpy(), a @ b)


def matmul_half():
    a, b = values(32, 32).astype(np.float16), values(32, 48).astype(np.float16)
    return close((Tensor(a) @ Tensor(b)).numpy(), a.astype(np.float32) @ b.astype(np.float32), 2e-2)


def bfloat16():
    a = values(64)
    return close((Tensor(a).cast(dtypes.bfloat16) * 3).cast(dtypes.float32).numpy(), a * 3, 2e-2)


def convolution():
    image, weight = values(2, 3, 10, 10), values(4, 3, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
    return close(Tensor(image).conv2d(Tensor(weight)).numpy(), np.einsum("bcyxij,ocij->boyx", windows, weight))


def normalizations():
    x = values(16, 64)
    norm = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return close(Tensor(x).softmax().numpy(), softmax(x)) + close(Tensor(x).layernorm().numpy(), norm)


def elementwise():
    x = np.abs(values(257)) + 0.1
    t = Tensor(x)
    return close(t.sin().numpy(), np.sin(x)) + close(t.log().numpy(), np.log(x)) + close(t.sqrt().numpy(), np.sqrt(x))


def integers():
    x = np.arange(-100, 157, dtype=np.int32)
    t = Tensor(x)
    results = [(t // 7, x // 7), (t % 7, x % 7), (t.cumsum(0), np.cumsum(x)), (t.flip(0), x[::-1]), (t ^ 85, x ^ 85)]
    for got, wanted in results:
        np.testing.assert_array_equal(got.numpy(), wanted)
    return [bits(got.numpy()) for got, _ in results]


def many_small_kernels():
    t = Tensor(np.zeros(8, np.float32)).realize()
    for i in range(200):
        t = (t + i).contiguous().realize()
    return close(t.numpy(), np.full(8, sum(range(200)), np.float32))


def jit():
    """From the second call on TinyJit launches a CUDA graph whose node parameters it exchanges."""

    @TinyJit
    def step(x: Tensor) -> Tensor:
        y = (x @ x).relu().contiguous().realize()
        return (y + x).sum(0).contiguous().realize()

    out = []
    for i in range(6):
        x = values(16, 16) + np.float32(i)
        out += close(step(Tensor(x).realize()).numpy(), (np.maximum(x @ x, 0) + x).sum(0), 1e-3)
    return out


def train(model: list, image: np.ndarray, steps: int) -> list[int]:
    labels = Tensor(np.arange(len(image), dtype=np.int32) % 4)
    optimizer = nn.optim.Adam(nn.state.get_parameters(model), lr=0.01)
    losses = []
    with Context(TRAINING=1):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = Tensor(image).sequential(model).sparse_categorical_crossentropy(labels).backward()
            optimizer.step()
            losses.append(loss.numpy())
    assert losses[-1] < losses[0], losses
    return bits(np.array(losses))


def train_mlp():
    Tensor.manual_seed(SEED)
    return train([nn.Linear(12, 16), Tensor.relu, nn.Linear(16, 4)], values(8, 12), 5)


def train_convnet():
    Tensor.manual_seed(SEED)
    model = [nn.Conv2d(1, 4, 3), Tensor.relu, lambda x: x.max_pool2d().flatten(1), nn.Linear(36, 4)]
    return train(model, values(4, 1, 8, 8), 3)


def attention():
    q, k, v = values(2, 8, 16), values(2, 9, 16), values(2, 9, 12)
    wanted = softmax(q @ k.transpose(0, 2, 1) / 4) @ v
    return close(Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v)).numpy(), wanted)


def transfers():
    x = np.arange(3_000_001, dtype=np.uint8)
    np.testing.assert_array_equal(Tensor(x).realize().numpy(), x)
    np.testing.assert_array_equal((Tensor(x) ^ 255).numpy(), x ^ 255)
    return int(x.sum())


PROGRAMS = {
    f.__name__: f
    for f in [matmul, matmul_half, bfloat16, convolution, normalizations, elementwise, integers, many_small_kernels,
              jit, train_mlp, train_convnet, attention, transfers]
}

if __name__ == "__main__":
    assert Device.DEFAULT.startswith("CUDA"), Device.DEFAULT
    print(json.dumps(PROGRAMS[sys.argv[1]]()))
