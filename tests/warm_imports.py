"""What the server of `tests.processes` imports, once for all processes that it forks: the libraries below OpenRLHF.

OpenRLHF itself is not among them, because our patches come before its import.
"""

import contextlib
import importlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"

for name in ("torch", "transformers.trainer", "peft", "ray", "datasets", "deepspeed", "vllm.inputs"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
