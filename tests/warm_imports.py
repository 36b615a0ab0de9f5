"""What the server of `tests.processes` imports, once for all processes that it forks: the libraries below OpenRLHF.

OpenRLHF itself is not among them, because our patches come before its import. A patch of these libraries finds its
module imported: it takes effect where others look a function up in that module, not where they have bound it by name,
as DeepSpeed's ZeRO has Muon's. No test with such a patch belongs into a warm process.
"""

import contextlib
import importlib
import os

os.environ["DS_ACCELERATOR"] = "cpu"

for name in ("torch", "transformers.trainer", "peft", "ray", "datasets", "deepspeed", "vllm.inputs"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
