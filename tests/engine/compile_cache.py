"""`python -m tests.engine.compile_cache FOLDER`: CPU seconds of an engine's start with its compile caches in FOLDER.

The first call compiles a tiny policy for this machine's CPU as vLLM compiles one for a GPU, a second one finds what
that left. CPU time, with the compilers' own apart: it says the same on a busy machine.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from tests.engine.tiny import _ENGINE_ENVIRONMENT, start_engine, write_checkpoint


def main() -> None:
    """Start one engine and say what it took."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.engine.compile_cache FOLDER")
    folder = Path(sys.argv[1]).absolute()
    own = {
        name: str(folder / below)
        for name, below in (
            ("VLLM_CACHE_ROOT", "vllm"),
            ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
            ("TRITON_CACHE_DIR", "triton"),
        )
    }
    os.environ.update({**_ENGINE_ENVIRONMENT, **own})
    policy = folder / "policy"
    if not policy.exists():
        write_checkpoint(policy, {"model_type": "qwen2"})
    start_engine(policy, enforce_eager=False)
    process, compilers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    files = [path for path in folder.rglob("*") if path.is_file() and policy not in path.parents]
    engine, children = (one.ru_utime + one.ru_stime for one in (process, compilers))
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"engine {engine:.1f} s, compilers {children:.1f} s; {len(files)} files, {size:.1f} MB")


if __name__ == "__main__":
    main()
