"""`openrlhf-mtp check` must answer on any machine, so the config package imports no engine."""

import subprocess
import sys

PROGRAM = """
import pkgutil, importlib, sys
import openrlhf_mtp.config as package
for module in pkgutil.walk_packages(package.__path__, "openrlhf_mtp.config."):
    importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "vllm", "ray", "transformers", "numpy"}))
"""


def test_no_module_of_config_imports_an_engine():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
