"""JAX cases: jit, grad, scan, a small training loop; XLA's command buffers and autotuner are as JAX ships them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from harness import register

CASES, case = register()


def to_bytes(array) -> bytes:
    return np.asarray(array).tobytes()


def synchronize():
    pass  # every step ends with block_until_ready


def ready(value):
    return jax.block_until_ready(value)


@case
def jit():
    x = jax.random.normal(jax.random.key(0), (1024, 1024))
    f = jax.jit(lambda a: jnp.tanh(a @ a.T) + jnp.sin(a) * 2)
    return lambda: ready(f(x))


@case
def grad():
    keys = jax.random.split(jax.random.key(1), 3)
    w, x, y = (jax.random.normal(k, s) for k, s in zip(keys, ((256, 256), (64, 256), (64, 256))))
    f = jax.jit(jax.grad(lambda w: jnp.mean((jax.nn.gelu(x @ w) - y) ** 2)))
    return lambda: ready(f(w))


@case
def scan():
    w = jax.random.normal(jax.random.key(2), (128, 128)) * 0.05

    @jax.jit
    def run(h):
        return jax.lax.scan(lambda c, _: ((n := jnp.tanh(c @ w + 0.1)), n.sum()), h, None, length=64)

    h = jax.random.normal(jax.random.key(3), (16, 128))
    return lambda: ready(run(h))


@case
def training_loop():
    def init(key):
        a, b = jax.random.split(key)
        return {"a": jax.random.normal(a, (64, 128)) * 0.1, "b": jax.random.normal(b, (128, 10)) * 0.1}

    x = jax.random.normal(jax.random.key(5), (256, 64))
    y = jax.random.randint(jax.random.key(6), (256,), 0, 10)

    def loss(p):
        logits = jax.nn.relu(x @ p["a"]) @ p["b"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(256), y])

    @jax.jit
    def update(p):
        value, g = jax.value_and_grad(loss)(p)
        return value, jax.tree.map(lambda w, d: w - 0.1 * d, p, g)

    state = {"p": init(jax.random.key(4))}

    def step():
        for _ in range(5):
            value, state["p"] = update(state["p"])
        return ready((value, state["p"]["a"], state["p"]["b"]))

    return step


@case
def eager_ops():
    x = jnp.arange(4096, dtype=jnp.float32)
    return lambda: ready((jnp.sort(-x), jnp.cumsum(x), jnp.fft.rfft(x).real, x[::3] * 2))


@case
def convolution():
    x = jax.random.normal(jax.random.key(8), (8, 3, 64, 64))
    w = jax.random.normal(jax.random.key(9), (16, 3, 3, 3))
    f = jax.jit(lambda a, b: jax.lax.conv_general_dilated(a, b, (1, 1), "SAME"))
    return lambda: ready(f(x, w))
