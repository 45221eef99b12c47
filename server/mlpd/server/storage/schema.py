"""The tables, portable between SQLite and PostgreSQL; times are nanoseconds since 1970."""

import sqlalchemy as sa

# Goes up with every change of the tables, or of what is stored in them.
VERSION = 6

metadata = sa.MetaData()

# What a job was made with; a spec can be half a megabyte, so what changes with every report is in a table of its own.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("request_id", sa.Text, unique=True),
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("log_id", sa.Text, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("spec_digest", sa.Text, nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a number is not used again, as cursors of lists are numbers
)

# The contents of the data sets and the model that a job reads.
job_inputs = sa.Table(
    "job_inputs",
    metadata,
    sa.Column("number", sa.Integer, sa.ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.Text, primary_key=True, index=True),
)

job_statuses = sa.Table(
    "job_statuses",
    metadata,
    sa.Column("number", sa.Integer, sa.ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", sa.JSON, nullable=False),
    sa.Column("train_loss", sa.Float),
    sa.Column("validation_loss", sa.Float),
    sa.Column("start_time", sa.BigInteger, nullable=False),
    sa.Column("end_time", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("crash_count", sa.Integer, nullable=False),
    sa.Column("queue_reason", sa.Text, nullable=False),
    sa.Column("checkpoints", sa.JSON, nullable=False),
    sa.Column("failure", sa.JSON(none_as_null=True)),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("device_description", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Index("jobs_by_state", "state", "number"),
)

# A metrics event also fills split and step, so that the table itself refuses a second one for the pair in one run.
# What is left of the log of a deleted job has no row in jobs any more.
events = sa.Table(
    "events",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("run", sa.Integer, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("split", sa.Text),
    sa.Column("step", sa.BigInteger),
    sa.UniqueConstraint("job_id", "run", "split", "step"),
)

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("input_size", sa.BigInteger, nullable=False),
    sa.Column("dtype", sa.Text, nullable=False),
    sa.Column("class_row_counts", sa.JSON, nullable=False),
    sa.Column("target_dtype", sa.Text, nullable=False),
    sa.Column("target_size", sa.BigInteger, nullable=False),
    sa.Column("target_range", sa.JSON, nullable=False),
    sa.Column("whole_targets", sa.Boolean, nullable=False),
    sa.Column("weighted", sa.Boolean, nullable=False),
    sa.Column("input_range", sa.JSON, nullable=False),
    sa.Column("whole_inputs", sa.Boolean, nullable=False),
    sa.Column("encoded_size", sa.BigInteger, nullable=False),
    sa.Column("schema", sa.JSON, nullable=False),
    sa.Column("statistics", sa.JSON, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("file_sha256", sa.Text, nullable=False, index=True),
    sa.Column("parameters_sha256", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False, unique=True),  # the job may be gone
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("loss", sa.Text, nullable=False),
    sa.Column("optimizer", sa.JSON, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("parameter_count", sa.BigInteger, nullable=False),
    sa.Column("input_size", sa.BigInteger, nullable=False),
    sa.Column("schema", sa.JSON, nullable=False),
    sa.Column("create_time", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_id", "version"),
    sqlite_autoincrement=True,
)

# What deleted names stood for, so that none is ever given to something else, and no request starts a second run.
deleted_jobs = sa.Table(
    "deleted_jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, unique=True),
    sa.Column("request_digest", sa.Text, nullable=False),
)

deleted_datasets = sa.Table(
    "deleted_datasets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
)

# Of each model the newest version that was deleted.
deleted_versions = sa.Table(
    "deleted_versions",
    metadata,
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
