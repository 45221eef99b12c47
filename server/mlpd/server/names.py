"""Resource names and ids: the one place that knows how they are spelt."""

import re

from mlpd.server.errors import InvalidRequest

ID_RULE = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
_ID = re.compile(ID_RULE.removesuffix("$") + r"\Z")
_SHA256_ID = re.compile(r"sha256-[0-9a-f]{64}\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,17}\Z")
_SHOWN_CHARACTERS = 80


def shown(value: str) -> str:
    """Return ``value`` quoted, escaped and short enough for an error message."""
    return ascii(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "...")


def check_id(field: str, value: str) -> str:
    """Return ``value`` if it is a valid id, else raise `InvalidRequest` for ``field``."""
    if not _ID.match(value):
        raise InvalidRequest.field(field, f"{field} must match {ID_RULE}, got {shown(value)}")
    return value


def check_request_id(value: str) -> str:
    """Return ``value`` if it is a UUID in its 36-character form."""
    if not _UUID.match(value):
        raise InvalidRequest.field("request_id", f"request_id must be a UUID of 36 characters, got {shown(value)}")
    return value.lower()


def job_name(job_id: str) -> str:
    """Return ``trainingJobs/{job_id}``."""
    return f"trainingJobs/{job_id}"


def dataset_name(dataset_id: str) -> str:
    """Return ``datasets/{dataset_id}``."""
    return f"datasets/{dataset_id}"


def version_name(model_id: str, version: int) -> str:
    """Return ``models/{model_id}/versions/{version}``."""
    return f"models/{model_id}/versions/{version}"


def parse_job(field: str, name: str) -> str:
    """Return the job id in ``trainingJobs/{id}``."""
    return _parse(field, name, "trainingJobs")


def parse_dataset(field: str, name: str) -> str:
    """Return the data set's id in ``datasets/{id}``, which may be ``sha256-{hex}``."""
    prefix, _, dataset_id = name.partition("/")
    if prefix == "datasets" and _SHA256_ID.match(dataset_id):
        return dataset_id
    return _parse(field, name, "datasets")


def parse_model(field: str, name: str) -> tuple[str, int | None]:
    """Return model id and version of ``models/{id}/versions/{n}``; version None for ``models/{id}``, the newest."""
    parts = name.split("/")
    if len(parts) == 4 and parts[2] == "versions" and _VERSION.match(parts[3]):
        return _parse(field, "/".join(parts[:2]), "models"), int(parts[3])
    if len(parts) == 2:
        return _parse(field, name, "models"), None
    raise InvalidRequest.field(
        field, f"{field} must be models/{{model}} or models/{{model}}/versions/{{version}}, got {shown(name)}"
    )


def parse_version(field: str, name: str) -> tuple[str, int]:
    """Return model id and version of ``models/{id}/versions/{n}``, where the newest can't be meant."""
    model_id, version = parse_model(field, name)
    if version is None:
        text = f"{field} must name one version, models/{{model}}/versions/{{version}}, got {shown(name)}"
        raise InvalidRequest.field(field, text)
    return model_id, version


def parse_series(field: str, name: str) -> str:
    """Return the model id in ``models/{id}``, where no version can be meant."""
    return _parse(field, name, "models")


def _parse(field: str, name: str, collection: str) -> str:
    prefix, separator, resource_id = name.partition("/")
    if prefix != collection or not separator or not _ID.match(resource_id):
        raise InvalidRequest.field(
            field, f"{field} must be {collection}/{{id}} with an id that matches {ID_RULE}, got {shown(name)}"
        )
    return resource_id
