"""NCCL's transport between pods, from its log: it falls back to TCP silently, and devices that are present can be
of a kind that it cannot use (EFA without its plug-in).

Lines as in NCCL 2.29.7 (src/transport/net.cc, p2p.cc, shm.cc), read in its source; EFA's plug-in is called `Libfabric`:

    pod-0:812:901 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [receive] via NET/IB/0/GDRDMA
    pod-0:812:901 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[0] via P2P/MNNVL
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

TCP = "NET/Socket"
_CHANNEL = re.compile(r"NCCL INFO Channel .* via (?:(NET/[^/\n]+)/[^/\s]+(/GDRDMA)?|(\w+))")
_SHOWN = ("INFO", "TRACE")


def record(folder: Path, environment: MutableMapping[str, str] = os.environ) -> Path:
    """Have NCCL, which has not begun in this process, log to a file; returns the file.

    Args:
        folder: Ray's logs of this pod, so that the file is kept with them. It is shown in the pod's output as well
            where the user asked NCCL to say more (`cluster.pod_logs.console.is_output` goes by the name).
        environment: of this process.
    """
    shown = environment.get("NCCL_DEBUG", "").upper() in _SHOWN
    path = folder / (f"worker-nccl-{os.getpid()}.out" if shown else f"nccl-{os.getpid()}.log")
    if not shown:
        environment["NCCL_DEBUG"] = "INFO"
    subsystems = environment.get("NCCL_DEBUG_SUBSYS", "")
    if not subsystems.startswith("^"):  # a list of what is left out
        environment["NCCL_DEBUG_SUBSYS"] = ",".join(filter(None, [subsystems, "INIT", "NET"]))
    environment["NCCL_DEBUG_FILE"] = str(path)
    return path


def transports(path: Path) -> list[str]:
    """The transport of this pod's channels: `NET/IB/GDRDMA` (straight into the GPU's memory), `NET/Socket` (TCP) or
    `P2P`; empty where NCCL says nothing of them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return sorted({(net + direct if net else other) for net, direct, other in _CHANNEL.findall(text)})
