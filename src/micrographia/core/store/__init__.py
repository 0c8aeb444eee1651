"""The store: the only code that writes files. `atomic` does the writing, `folder` is the handle on a Run.

This module exports the names that other packages use.
"""

from micrographia.core.store.atomic import write_bytes
from micrographia.core.store.checkpoints import Checkpoint, snapshots
from micrographia.core.store.folder import RunFolder, add_file
from micrographia.core.store.formats import (
    json_bytes,
    plain,
    read_json,
    read_table,
    read_tensors,
    write_tensors,
)
from micrographia.core.store.manifest import Problem
from micrographia.core.store.runs import find_run, list_runs, load_run, new_run_path, read_metrics, runs_root
from micrographia.core.store.verify import verify

__all__ = [
    "Checkpoint",
    "Problem",
    "RunFolder",
    "add_file",
    "find_run",
    "json_bytes",
    "list_runs",
    "load_run",
    "new_run_path",
    "plain",
    "read_json",
    "read_metrics",
    "read_table",
    "read_tensors",
    "runs_root",
    "snapshots",
    "verify",
    "write_bytes",
    "write_tensors",
]
