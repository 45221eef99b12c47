"""Anyone's table as rows and what to learn of them: files and frames, by one set of rules.

`read_labelled` reads rows with what to learn, `read_rows` those that a model is to predict. What is done to a table
stands in its ``notes``: nothing is done without a word.
"""

from mlpd.client.tables.answers import TASKS
from mlpd.client.tables.columns import Column, columns_from
from mlpd.client.tables.reading import TableOptions, TextOptions, read_labelled, read_rows, read_table
from mlpd.client.tables.table import LabelledTable, Schema, Table, model_schema, schema_of

__all__ = [
    "TASKS",
    "Column",
    "LabelledTable",
    "Schema",
    "Table",
    "TableOptions",
    "TextOptions",
    "columns_from",
    "model_schema",
    "read_labelled",
    "read_rows",
    "read_table",
    "schema_of",
]
