"""JAX programs: transformations, training with flax, optax and equinox, host callbacks, arrays shared with PyTorch, the profiler."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cases_jax import ready, synchronize, to_bytes
from harness import need, note, register

CASES, case = register()


@case
def vmap_of_grad():
    """vmap over grad, and a Hessian by two modes"""
    w, x = jax.random.normal(jax.random.key(10), (16,)), jax.random.normal(jax.random.key(11), (64, 16))
    f = lambda w, x: jnp.sum(jnp.sin(x * w) ** 3)
    each = jax.jit(jax.vmap(jax.grad(f), (None, 0)))
    hessian = jax.jit(jax.jacfwd(jax.jacrev(f)))
    return lambda: ready((each(w, x), hessian(w, x[0])))


@case
def pmap_on_one_device():
    """pmap and a collective, over one device"""
    x = jax.random.normal(jax.random.key(12), (1, 256, 256))
    f = jax.pmap(lambda a: jax.lax.psum(a @ a, "devices") + jax.lax.axis_index("devices"), "devices", devices=jax.devices()[:1])
    return lambda: ready(f(x))


@case
def sharded_jit():
    """jit with named shardings over a mesh of one device"""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(jax.random.normal(jax.random.key(13), (128, 128)), rows)
    f = jax.jit(lambda a: jax.nn.softmax(a @ a.T), out_shardings=rows)
    return lambda: ready(f(x))


@case
def flax_mlp():
    """flax and optax: training steps of a perceptron, with dropout"""
    nn, optax = need("flax.linen"), need("optax")

    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.LayerNorm()(nn.Dense(128)(x)))
            return nn.Dense(10)(nn.Dropout(0.1, deterministic=False)(x))

    net, optimizer = Perceptron(), optax.adamw(1e-2)
    x, y = jax.random.normal(jax.random.key(14), (64, 32)), jax.random.randint(jax.random.key(15), (64,), 0, 10)
    params = net.init({"params": jax.random.key(16), "dropout": jax.random.key(17)}, x)
    state = {"params": params, "optimizer": optimizer.init(params), "turn": 0}

    @jax.jit
    def update(params, optimizer_state, key):
        loss_of = lambda p: optax.softmax_cross_entropy_with_integer_labels(net.apply(p, x, rngs={"dropout": key}), y).mean()
        loss, grads = jax.value_and_grad(loss_of)(params)
        changes, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return loss, optax.apply_updates(params, changes), optimizer_state

    def step():
        state["turn"] += 1
        loss, state["params"], state["optimizer"] = update(state["params"], state["optimizer"], jax.random.key(state["turn"]))
        return ready([loss, *jax.tree.leaves(state["params"])])

    return step


@case
def equinox_step():
    """equinox: a filtered, jitted training step"""
    equinox = need("equinox")
    net = equinox.nn.MLP(16, 4, 64, 2, key=jax.random.key(18))
    x, y = jax.random.normal(jax.random.key(19), (32, 16)), jax.random.normal(jax.random.key(20), (32, 4))

    @equinox.filter_jit
    def update(net):
        loss, grads = equinox.filter_value_and_grad(lambda net: jnp.mean((jax.vmap(net)(x) - y) ** 2))(net)
        return loss, equinox.apply_updates(net, jax.tree.map(lambda g: -0.1 * g, grads))

    state = {"net": net}

    def step():
        loss, state["net"] = update(state["net"])
        return ready([loss, *jax.tree.leaves(equinox.filter(state["net"], equinox.is_array))])

    return step


@case
def custom_vjp():
    """A function with a derivative of its own, under jit, checkpointed"""

    @jax.custom_vjp
    def clipped(x):
        return jnp.exp(x)

    clipped.defvjp(lambda x: (jnp.exp(x), x), lambda x, g: (g * jnp.clip(jnp.exp(x), 0.0, 2.0),))
    f = jax.jit(jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda v: clipped(jnp.sin(v)))(x))))
    x = jnp.linspace(-3, 3, 5000)
    return lambda: ready(f(x))


@case
def donated_buffers():
    """Buffers that a jitted step takes over and writes in place"""
    f = jax.jit(lambda state, x: (state * 0.9 + x, jnp.sum(state)), donate_argnums=0)
    x, state = jax.random.normal(jax.random.key(21), (512, 512)), {"s": jnp.zeros((512, 512))}

    def step():
        state["s"], total = f(state["s"], x)
        return ready((state["s"].copy(), total))

    return step


@case
def random_numbers():
    """Random distributions and permutations"""
    f = jax.jit(lambda key: [draw(k) for draw, k in zip((lambda k: jax.random.normal(k, (4096,)), lambda k: jax.random.gamma(k, 2.0, (512,)),
                             lambda k: jax.random.permutation(k, 1000), lambda k: jax.random.categorical(k, jnp.zeros((64, 10)))), jax.random.split(key, 4))])
    turn = {"n": 0}

    def step():
        turn["n"] += 1
        return ready(f(jax.random.key(turn["n"])))

    return step


@case
def fft():
    """Fourier transforms, one and two axes (cuFFT)"""
    x = jax.random.normal(jax.random.key(22), (64, 96))
    f = jax.jit(lambda a: (jnp.fft.rfft2(a), jnp.fft.ifft(jnp.fft.fft(a)).real))
    return lambda: ready(f(x))


@case
def linear_algebra():
    """Cholesky, triangular solve, QR, eigenvalues (cuSOLVER)"""
    x = jax.random.normal(jax.random.key(23), (64, 64))
    f = jax.jit(lambda a: (jnp.linalg.cholesky(a @ a.T + 64 * jnp.eye(64)), jnp.linalg.solve(a + 16 * jnp.eye(64), a[:, 0]), jnp.linalg.qr(a)[1], jnp.linalg.eigvalsh(a + a.T)))
    return lambda: ready(f(x))


@case
def sparse():
    """Sparse matrices (BCOO), products with vectors and matrices"""
    library = need("jax.experimental.sparse")
    dense = jax.random.normal(jax.random.key(24), (128, 128)) * (jax.random.uniform(jax.random.key(25), (128, 128)) < 0.1)
    matrix, x = library.BCOO.fromdense(dense, nse=int((dense != 0).sum())), jax.random.normal(jax.random.key(26), (128, 8))
    f = jax.jit(lambda m, x: (m @ x[:, 0], m @ x, (m.T @ x).sum()))
    return lambda: ready(f(matrix, x))


@case
def pure_callback():
    """A NumPy function called from inside a jitted program"""
    on_host = lambda a: np.sort(a)[::-1] * np.float32(0.5)
    f = jax.jit(lambda a: jax.pure_callback(on_host, jax.ShapeDtypeStruct(a.shape, a.dtype), jnp.sin(a)) + 1)
    x = jax.random.normal(jax.random.key(27), (2048,))
    return lambda: ready(f(x))


@case
def ordered_callback():
    """Callbacks with effects, in order"""
    io_callback = need("jax.experimental").io_callback
    seen = []

    @jax.jit
    def f(x):
        for value in (x.sum(), x.max()):
            io_callback(lambda v: seen.append(float(v)), None, value, ordered=True)
        return x * 2

    x = jnp.arange(16, dtype=jnp.float32)

    def step():
        seen.clear()
        out = ready(f(x))
        jax.effects_barrier()
        assert seen == [120.0, 15.0], seen
        return out

    return step


@case
def arrays_shared_with_torch():
    """Arrays handed to PyTorch and back by DLPack, without a copy"""
    torch = need("torch")
    x = jax.random.normal(jax.random.key(28), (1024,))

    def step():
        ready(x)
        theirs = torch.from_dlpack(x)
        doubled = (theirs * 2).contiguous()
        if doubled.is_cuda:
            torch.cuda.synchronize()
        return ready(jnp.from_dlpack(doubled) + 1), theirs.data_ptr() == x.unsafe_buffer_pointer()

    return step


@case(once=True)
def profiler_trace():
    """jax.profiler.trace: the program is right, and a trace is written or it is said why not"""
    x = jax.random.normal(jax.random.key(29), (256, 256))
    f = jax.jit(lambda a: jnp.tanh(a @ a).sum(0))

    def step():
        plain = ready(f(x))
        with tempfile.TemporaryDirectory() as folder:
            try:
                with jax.profiler.trace(folder):
                    traced = ready(f(x))
            except Exception as error:
                note("profiler", f"{type(error).__name__}: {error}"[:200])
                return plain
            written = [file for file in Path(folder).rglob("*") if file.is_file()]
            # What CUPTI saw of the device is under planes of this name.
            planes = sum(b"/device:GPU:" in file.read_bytes() for file in written)
            note("profiler", f"{len(written)} files, of the device in {planes}")
            assert written, "a trace is written"
        assert (np.asarray(plain) == np.asarray(traced)).all()
        return plain

    return step
