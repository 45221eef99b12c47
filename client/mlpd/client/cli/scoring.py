"""Whether a model that does not exist yet can be scored on a data set, told before time is spent on training it."""

from mlpd.client.client import Client
from mlpd.client.errors import InvalidRequest
from mlpd.v1.trainer_service_pb2 import TrainingSpec


def check_test_dataset(client: Client, name: str, spec: TrainingSpec) -> None:
    """Raise an error unless the model that comes of ``spec`` fits the data set ``name``, by the rules of Evaluate."""
    spec = client.resolve(spec)
    test, train = client.dataset(name), client.dataset(spec.train_dataset)
    input_size, output_count = spec.model.layer_sizes[0], spec.model.layer_sizes[-1]
    class_count = {"multiclass": output_count, "binary": 2}.get(spec.task, 0)
    wanted = f"at most {class_count} classes" if class_count else f"{output_count} numbers as targets"
    found = f"{test.target_size} numbers as targets" if test.target_size else f"{test.class_count} classes"
    fits = test.target_size == (0 if class_count else output_count) and test.class_count <= class_count
    if test.input_size != input_size or not fits:
        raise InvalidRequest(
            f"test_dataset must have rows of {input_size} values and {wanted} as the model will have, "
            f"got {test.input_size} and {found}"
        )
    if test.input_names and train.input_names and set(test.input_names) != set(train.input_names):
        raise InvalidRequest(f"test_dataset must have the columns of {spec.train_dataset}, got others in {test.name}")
