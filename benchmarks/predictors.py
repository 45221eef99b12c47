"""Predictions by each system, in process, from rows as they are stored (uint8) to probabilities in host memory."""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from cases import Case
from data import Epoch, data_of

Predict = Callable[[Any], object]


def products(case: Case) -> tuple[Epoch, str]:
    """Return the matrix products of the calls, and nothing else."""
    rows = min(case.batch_size, 512)
    layers = [
        [np.ones(shape, np.float32) for shape in ((rows, inputs), (inputs, width), (rows, width))]
        for inputs, width in pairwise(case.layer_sizes)
    ]

    def epoch() -> None:
        for _ in range(case.row_count // rows):
            for x, weight, y in layers:
                np.matmul(x, weight, out=y)

    return epoch, f"numpy {np.__version__}"


def mlpd(case: Case) -> tuple[Epoch, str]:
    """Return calls of ours."""
    from mlpd.core.models.model import Model
    from mlpd.core.models.predictor import CompiledPredictor
    from mlpd.core.network.architecture import ModelSpec
    from mlpd.core.network.losses import SoftmaxCrossEntropy
    from mlpd.core.network.network import initial_parameters
    from mlpd.core.network.scaling import Scaling

    spec = ModelSpec.plain(case.layer_sizes, input_scale=1 / 255)
    parameters = initial_parameters(spec.layers(), spec.initializer, 0, spec.dtype)
    scaling = Scaling(None, spec.input_scale)
    model = Model(spec, "multiclass", SoftmaxCrossEntropy(), parameters, parameters[:0], scaling)
    threads = os.cpu_count() or 1
    predictor = CompiledPredictor(model, 1024, threads)
    return _calls(case, predictor.predict), f"numpy {np.__version__}, compiled, {threads} threads"


def pytorch(case: Case, *, compiled: bool = False) -> tuple[Epoch, str]:
    """Return calls of PyTorch, eager or compiled."""
    import torch

    layers: list[torch.nn.Module] = []
    for size, width in pairwise(case.layer_sizes):
        layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
    layers[-1] = torch.nn.Softmax(1)
    model: Any = torch.nn.Sequential(*layers).eval()
    model = torch.compile(model) if compiled else model

    def predict(rows: Any) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(rows) * (1 / 255)).numpy()

    return _calls(case, predict), f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def jax(case: Case) -> tuple[Epoch, str]:
    """Return calls of a compiled function of JAX."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), len(case.layer_sizes))
    parameters = [
        (jax.random.normal(key, (size, width)) * (2 / size) ** 0.5, jnp.zeros(width))
        for key, (size, width) in zip(keys, pairwise(case.layer_sizes), strict=False)
    ]

    @jax.jit  # type: ignore[untyped-decorator]
    def forward(parameters: Any, x: Any) -> Any:
        x = x * jnp.float32(1 / 255)
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return jax.nn.softmax(x @ parameters[-1][0] + parameters[-1][1])

    return _calls(case, lambda rows: np.asarray(forward(parameters, rows))), f"jax {jax.__version__}"


def keras(case: Case) -> tuple[Epoch, str]:
    """Return calls of Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    *hidden, last = case.layer_sizes[1:]
    layers = [keras.layers.Dense(width, activation="relu") for width in hidden]
    scaling, outputs = keras.layers.Rescaling(1 / 255), keras.layers.Dense(last, activation="softmax")
    model = keras.Sequential([keras.Input((case.layer_sizes[0],)), scaling, *layers, outputs])
    return _calls(case, model.predict_on_batch), f"keras {keras.__version__} on jax"


def scikit_learn(case: Case) -> tuple[Epoch, str]:
    """Return calls of scikit-learn."""
    import warnings

    import sklearn
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    inputs, labels = data_of(case)
    network = MLPClassifier(case.layer_sizes[1:-1], max_iter=1)
    network.fit(inputs[:1000] * np.float32(1 / 255), labels[:1000])
    return _calls(case, lambda rows: network.predict_proba(rows * np.float32(1 / 255))), (
        f"scikit-learn {sklearn.__version__}"
    )


def _calls(case: Case, predict: Predict) -> Epoch:
    inputs, size = np.array(data_of(case)[0]), case.batch_size

    def epoch() -> None:
        for start in range(0, case.row_count // size * size, size):
            predict(inputs[start : start + size])

    return epoch


PREDICTORS: dict[str, Callable[[Case], tuple[Epoch, str]]] = {
    "products": products,
    "mlpd": mlpd,
    "pytorch": pytorch,
    "pytorch compiled": lambda case: pytorch(case, compiled=True),
    "jax": jax,
    "keras": keras,
    "scikit-learn": scikit_learn,
}
