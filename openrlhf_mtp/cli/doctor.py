"""`openrlhf-mtp doctor`, also `python -m openrlhf_mtp.cli.doctor`: does all that a run needs import? Ends set-up."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys

from openrlhf_mtp.config.machine.host import detect_host
from openrlhf_mtp.upstream.registry import state

ENGINES = (
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("ray", "ray"),
    ("deepspeed", "deepspeed"),
    ("vllm", "vllm"),
    ("openrlhf", "openrlhf.cli.train_ppo_ray"),
)
"""Package, and the module whose import shows that the package works here."""

PLUGIN_GROUP = "vllm.general_plugins"
PLUGIN = "openrlhf_mtp"


def versions() -> dict[str, str]:
    """Import every engine and return the versions.

    Raises:
        ImportError: one of them does not import on this host.
    """
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    found = {"python": sys.version.split()[0], "openrlhf-mtp": importlib.metadata.version("openrlhf-mtp")}
    for package, module in ENGINES:
        importlib.import_module(module)
        name = importlib.metadata.packages_distributions()[package][0]
        found[name] = importlib.metadata.version(name)
    return found


def plugin_problem() -> str | None:
    """Why vLLM would not run our plugin, None when it would: vLLM itself only logs a plugin that fails."""
    points = [point for point in importlib.metadata.entry_points(group=PLUGIN_GROUP) if point.name == PLUGIN]
    if not points:
        return f"no entry point {PLUGIN} in {PLUGIN_GROUP}; install the package: pip install -e . --no-deps"
    points[0].load()()
    from vllm import ModelRegistry

    from openrlhf_mtp.config.head_contract.fit import DRAFT_ARCHITECTURE

    if DRAFT_ARCHITECTURE not in ModelRegistry.get_supported_archs():
        return f"the plugin ran, but vLLM does not know {DRAFT_ARCHITECTURE}"
    return None


def main() -> int:
    """Print a line for each package, the replacements, the host and the plugin; 0 when all of them work."""
    logging.disable(logging.WARNING)  # packages remark on optional parts; what is missing for us raises
    try:
        for name, version in versions().items():
            print(f"{name:<14}{version}")
        problem = plugin_problem()
        replaced = state()
        print(f"{'replacements':<14}{replaced}")
    except ImportError as missing:
        problem, replaced = f"not tried, because of: {missing}", None
    print(f"{'host':<14}{detect_host()}")
    print(f"{'vLLM plugin':<14}{problem or 'live'}")
    return 1 if problem or replaced is None or replaced.dead else 0


if __name__ == "__main__":
    sys.exit(main())
