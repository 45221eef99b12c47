"""The vocabulary of a training run: one flat name each for Python, command-line flags and TOML files."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from mlpd.client.errors import InvalidRequest

TEXT, WHOLE, NUMBER = "text", "a whole number of 64 bits", "a number"
SMALL_WHOLE = "a whole number of 32 bits"
FLAG, WHOLES = "true or false", "a list of whole numbers"
TEXTS, NUMBERS = "text or a list of texts", "a number or a list of numbers"
WEIGHTS, SCHEDULE = "balanced or a list of numbers", "text or a list of tables"


@dataclass(frozen=True)
class Setting:
    """What a value must be, and what it means; whether a number makes sense is for the server to say."""

    kind: str
    help: str


SETTINGS: Mapping[str, Setting] = {
    "layer_sizes": Setting(WHOLES, "Units per layer, input first: 784,532,10."),
    "activation": Setting(
        TEXTS, "relu, leaky_relu, tanh, sigmoid, gelu, silu, softplus, elu or identity; one, or one a hidden layer."
    ),
    "normalization": Setting(TEXT, "Of hidden layers: none, layer or batch."),
    "dropout": Setting(NUMBERS, "Dropout rate; one, or one a hidden layer."),
    "input_dropout": Setting(NUMBER, "Dropout rate of the inputs."),
    "initializer": Setting(TEXT, "{he,glorot,lecun}_{normal,uniform}, orthogonal or zeros."),
    "input_scale": Setting(
        NUMBER, "Factor of every input value; default: 1/255 for whole numbers from 0 to 255 (pixels), else 1."
    ),
    "standardize": Setting(FLAG, "Shift and scale inputs by mean and deviation of the training rows."),
    "data_type": Setting(TEXT, "float32 or float64."),
    "task": Setting(TEXT, "multiclass, binary, multilabel or regression; default: by the data's values."),
    "loss": Setting(
        TEXT, "{softmax,sigmoid}_cross_entropy, mean_squared, huber, mean_absolute or poisson; default: by the task."
    ),
    "huber_delta": Setting(NUMBER, "Of huber: where its square becomes a line."),
    "label_smoothing": Setting(NUMBER, "Share of a target spread over all classes, or yes and no."),
    "class_weights": Setting(WEIGHTS, "Weight of each class, or balanced."),
    "mixup_alpha": Setting(NUMBER, "Mix pairs of rows, in shares from Beta(alpha, alpha)."),
    "train_dataset": Setting(TEXT, "Data set to train on."),
    "validation_dataset": Setting(TEXT, "Data set to validate on."),
    "validation_fraction": Setting(NUMBER, "Share of the training rows held out to validate on."),
    "validation_interval_epochs": Setting(WHOLE, "Epochs between validations; default: 1."),
    "batch_size": Setting(WHOLE, "Rows per mini-batch; default: all."),
    "accumulation_steps": Setting(WHOLE, "Mini-batches per step."),
    "epoch_count": Setting(WHOLE, "Passes over the data."),
    "optimizer": Setting(TEXT, "sgd, adam, adamw, rmsprop, adagrad or lion."),
    "learning_rate": Setting(NUMBER, "Peak learning rate."),
    "momentum": Setting(NUMBER, "Of sgd and rmsprop."),
    "nesterov": Setting(FLAG, "Nesterov's variant of sgd."),
    "beta1": Setting(NUMBER, "Of adam and lion."),
    "beta2": Setting(NUMBER, "Of adam and lion."),
    "decay": Setting(NUMBER, "Of rmsprop."),
    "epsilon": Setting(NUMBER, "Of adam, rmsprop and adagrad."),
    "weight_decay": Setting(NUMBER, "Decoupled weight decay; adamw's default is 0.01."),
    "clip_norm": Setting(NUMBER, "Largest norm of the gradient."),
    "average_decay": Setting(NUMBER, "Keep a moving average of the weights, with this decay."),
    "schedule": Setting(SCHEDULE, "constant, cosine, steps, exponential, polynomial, one_cycle; in a file a list."),
    "warmup_steps": Setting(WHOLE, "Of cosine."),
    "interval_steps": Setting(WHOLE, "Of steps."),
    "factor": Setting(NUMBER, "Of steps."),
    "power": Setting(NUMBER, "Of polynomial."),
    "rise": Setting(NUMBER, "Of one_cycle: share of the run."),
    "initial_share": Setting(NUMBER, "Of polynomial and one_cycle: share of the peak rate at the start."),
    "final_share": Setting(NUMBER, "Of cosine, exponential, polynomial and one_cycle: share of the peak at the end."),
    "plateau_factor": Setting(NUMBER, "Lower the rate by this when the validation loss no longer falls."),
    "plateau_patience": Setting(WHOLE, "Validations before that."),
    "plateau_minimum_share": Setting(NUMBER, "Share of the rate that stays."),
    "augment_shift_pixels": Setting(NUMBER, "Largest random shift of images."),
    "augment_rotation_degrees": Setting(NUMBER, "Largest random rotation."),
    "augment_scale": Setting(NUMBER, "Largest random change of size, as a fraction."),
    "augment_shear": Setting(NUMBER, "Largest random shear, as a fraction."),
    "augment_elastic_pixels": Setting(NUMBER, "Random elastic deformation: standard deviation."),
    "augment_elastic_smoothness_pixels": Setting(NUMBER, "Width of its bumps."),
    "augment_image_height": Setting(WHOLE, "Lines of an image; default: images are square."),
    "augment_image_width": Setting(WHOLE, "Pixels of a line."),
    "early_stopping_patience": Setting(WHOLE, "End after so many validations without improvement; keep the best."),
    "early_stopping_minimum_delta": Setting(NUMBER, "What counts as one."),
    "early_stopping_metric": Setting(TEXT, "loss or accuracy."),
    "time_limit_seconds": Setting(NUMBER, "End after so much computing, with what there is."),
    "warm_start": Setting(TEXT, "Model to go on from."),
    "warm_start_scope": Setting(TEXT, "weights, or full: the optimizer's state too."),
    "seed": Setting(WHOLE, "Key of every random number; default: the server picks one."),
    "device": Setting(TEXT, "cpu or cuda; default: cuda if usable."),
    "runner": Setting(TEXT, "compiled or plain; default: compiled on the CPU, where the server has it."),
    "split": Setting(TEXT, "What threads share a step by: units or rows; default: what pays."),
    "block_count": Setting(SMALL_WHOLE, "Blocks of units or rows; default: as many as pay."),
    "environment_change": Setting(
        TEXT, "If a run must go on where its numbers would come out otherwise: refuse, or restart; default: refuse."
    ),
    "metrics_interval_steps": Setting(WHOLE, "Steps between reports; default: one an epoch."),
}


def check_kind(name: str, value: Any, kind: str = TEXT) -> None:
    """Raise `InvalidRequest` unless ``value`` is of ``kind``."""
    if not _KINDS[kind](value):
        raise InvalidRequest(f"{name} must be {kind}, got {value!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any, bits: int = 64) -> bool:
    limit = 2 ** (bits - 1)
    return isinstance(value, Integral) and not isinstance(value, bool) and -limit <= int(value) < limit


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, Real) and not isinstance(value, Integral))


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Collection) and not isinstance(value, str) and all(map(holds, value))


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    TEXT: _is_text,
    WHOLE: _is_whole,
    SMALL_WHOLE: lambda value: _is_whole(value, 32),
    NUMBER: _is_number,
    FLAG: lambda value: isinstance(value, bool),
    WHOLES: _list_of(_is_whole),
    TEXTS: lambda value: _is_text(value) or _list_of(_is_text)(value),
    NUMBERS: lambda value: _is_number(value) or _list_of(_is_number)(value),
    WEIGHTS: lambda value: value == "balanced" if _is_text(value) else _list_of(_is_number)(value),
    SCHEDULE: lambda value: _is_text(value) or _list_of(lambda item: isinstance(item, Mapping))(value),
}
