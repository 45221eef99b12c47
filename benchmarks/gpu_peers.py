"""PyTorch and JAX, as fast as they are usually made: all rows on the device, float32, one trainer of each way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from cases import Case
from mlpd.core.devices.arrays import HostArray

Layers = list[tuple[HostArray, HostArray]]  # weights (inputs, width) and biases (width,)
_WARM_UP_STEPS = 3  # that PyTorch asks for before a capture


@dataclass(frozen=True)
class Start:
    """What all are given: inputs (rows, width) as float32, labels as int64, the first weights and biases.

    ``order`` is that of the rows in the first epoch.
    """

    inputs: HostArray
    labels: HostArray
    layers: Layers
    order: HostArray


@dataclass(frozen=True)
class Trainer:
    """One system with one case on its device."""

    start: Callable[[], object]  # hands an epoch to the device, which may be at it when this returns
    wait: Callable[[], object]
    layers: Callable[[], Layers]  # as they are now
    version: str


def _is_whole(case: Case) -> bool:
    """Return whether all rows are one batch, whose order does not matter."""
    return case.batch_size >= case.row_count


def torch_trainer(case: Case, start: Start, way: str) -> Trainer:
    """Return a trainer of PyTorch: "eager", "compiled" or "graph", which is a captured step, launched for each batch.

    The optimizer's step is one fused kernel; products do without TF32.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    on_gpu = case.device == "cuda"
    inputs, labels, first = (
        torch.from_numpy(array).to(case.device) for array in (start.inputs, start.labels, start.order)
    )
    model = _torch_model(start, case.device)
    parameters = list(model.parameters())
    if case.optimizer == "adam":
        # Without this a step would ask the device for its number, which a graph can't.
        optimizer: Any = torch.optim.Adam(parameters, case.learning_rate, fused=True, capturable=on_gpu)
    else:
        optimizer = torch.optim.SGD(parameters, case.learning_rate, fused=True)

    def loss_of(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x), y)

    torch.compiler.reset()  # it compiles one function so often and no oftener
    # The last batch may be smaller, and is compiled by itself.
    loss = torch.compile(loss_of, dynamic=False) if way == "compiled" else loss_of
    is_whole = _is_whole(case)

    def learn(x: Any, y: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(x, y).backward()
        optimizer.step()

    data = inputs, labels
    make = _captured(learn, case, data, model, optimizer) if way == "graph" else _step(learn, data, is_whole=is_whole)

    def orders() -> Iterator[Any]:
        yield first
        while True:
            yield first if is_whole else torch.randperm(case.row_count, device=case.device)

    coming = orders()

    def epoch() -> None:
        for rows in next(coming).split(case.batch_size):
            make(rows)

    def layers() -> Layers:
        found = [parameter.detach().cpu().numpy() for parameter in parameters]
        return [(weight.T, bias) for weight, bias in zip(found[::2], found[1::2], strict=True)]

    wait = torch.cuda.synchronize if on_gpu else lambda: None
    return Trainer(epoch, wait, layers, f"torch {torch.__version__}, TF32 off, fused optimizer")


def _torch_model(start: Start, device: str) -> Any:
    import torch

    modules: list[Any] = []
    for weight, bias in start.layers:
        layer = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1]).to(device)


def _step(learn: Callable[[Any, Any], None], data: tuple[Any, Any], *, is_whole: bool) -> Callable[[Any], None]:
    """Return a step on rows, or on all of them in their order."""
    return lambda rows: learn(*(array if is_whole else array.index_select(0, rows) for array in data))


def _captured(
    learn: Callable[[Any, Any], None], case: Case, data: tuple[Any, Any], model: Any, optimizer: Any
) -> Callable[[Any], None]:
    """Return a step on rows, for the case's sizes of batches: each is a graph that reads its rows from one place.

    As PyTorch describes it: a few steps in a side stream first, then no gradients, so that the backward pass of the
    capture puts them where every replay does; rows are written to their place before each replay. What the first steps
    changed is put back.
    """
    import torch

    before = [parameter.detach().clone() for parameter in model.parameters()]
    sizes = {min(case.batch_size, case.row_count), case.row_count % case.batch_size or case.batch_size}
    places = {size: tuple(array[:size].clone() for array in data) for size in sizes}
    graphs = {}
    side = torch.cuda.Stream()
    for size, place in places.items():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_STEPS):
                learn(*place)
        torch.cuda.current_stream().wait_stream(side)
        optimizer.zero_grad(set_to_none=True)
        graphs[size] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[size]):
            learn(*place)
    torch.cuda.synchronize()
    with torch.no_grad():
        for parameter, old in zip(model.parameters(), before, strict=True):
            parameter.copy_(old)
        for own in optimizer.state.values():
            for tensor in filter(torch.is_tensor, own.values()):  # moments and the number of steps
                tensor.zero_()

    def replay(rows: Any) -> None:
        for array, place in zip(data, places[len(rows)], strict=True):
            torch.index_select(array, 0, rows, out=place)
        graphs[len(rows)].replay()

    return replay


def jax_trainer(case: Case, start: Start, precision: str) -> Trainer:
    """Return a trainer of JAX: an epoch is one compiled scan over its batches, and a step if rows are left.

    ``precision`` is of products: "default", which on a GPU may take TF32, or "highest", which is float32.
    """
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_device", jax.devices(case.device)[0])
    jax.config.update("jax_default_matmul_precision", None if precision == "default" else precision)
    inputs, labels = jnp.asarray(start.inputs), jnp.asarray(start.labels.astype(np.int32))
    compiled = jax.jit(_jax_epoch(case), donate_argnums=0)
    shuffled = jax.jit(lambda seed: jax.random.permutation(jax.random.key(seed), case.row_count))

    def orders() -> Iterator[Any]:
        first = jnp.asarray(start.order.astype(np.int32))
        yield first
        for number in count():
            yield first if _is_whole(case) else shuffled(number)

    coming = orders()
    parameters = [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in start.layers]
    moments: Any = ((), ())
    if case.optimizer == "adam":
        moments = tuple(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    now = {"state": (parameters, *moments, jnp.zeros(()))}

    def epoch() -> None:
        now["state"] = compiled(now["state"], next(coming), inputs, labels)

    def layers() -> Layers:
        return [(np.asarray(weight), np.asarray(bias)) for weight, bias in now["state"][0]]

    version = f"jax {jax.__version__}, {precision} precision"
    return Trainer(epoch, lambda: jax.block_until_ready(now["state"]), layers, version)


def _jax_epoch(case: Case) -> Callable[..., Any]:
    """Return an epoch as a function of the state, the order of rows, and the rows.

    These are arguments, for what a function refers to becomes constants of its code.
    """
    import jax

    step = _jax_step(case)
    full = case.row_count - case.row_count % case.batch_size

    def epoch(state: Any, order: Any, inputs: Any, labels: Any) -> Any:
        def next_step(state: Any, rows: Any) -> Any:
            return step(state, inputs[rows], labels[rows]), None

        if _is_whole(case):
            return step(state, inputs, labels)
        state, _ = jax.lax.scan(next_step, state, order[:full].reshape(-1, case.batch_size))
        return state if full == case.row_count else next_step(state, order[full:])[0]

    return epoch


def _jax_step(case: Case) -> Callable[..., Any]:
    """Return a step as a function of parameters, moments and the number of steps, and of a batch."""
    import jax
    import jax.numpy as jnp

    rate = case.learning_rate

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ parameters[-1][0] + parameters[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    def step(state: Any, x: Any, y: Any) -> Any:
        parameters, mean, square, number = state
        gradients = jax.grad(loss)(parameters, x, y)
        if case.optimizer == "sgd":
            return jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), mean, square, number
        number = number + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradients)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradients)

        def move(p: Any, m: Any, s: Any) -> Any:
            return p - rate * (m / (1 - 0.9**number)) / (jnp.sqrt(s / (1 - 0.999**number)) + 1e-8)

        return jax.tree.map(move, parameters, mean, square), mean, square, number

    return step
