"""What OpenRLHF's other modes need beside a tiny job: an agent, a reward server, a reward model; and what they left."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.checkpoints import HEAD
from openrlhf_mtp.config.run_files import CHECKPOINTS

ENDS = tuple(range(288, 320))
"""A tenth of the rows end a turn, so that there are several before an agent's context is full."""

TURNS = 3
PER_DIGIT = 0.01
AGENT = f"""
import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor


class Instance(AgentInstanceBase):
    def __init__(self):
        self.turns = 0

    async def step(self, states, **_):
        self.turns += 1
        digits = sum(letter in "0123456789" for letter in states["action_text"])
        return {{
            "rewards": torch.tensor({PER_DIGIT} * digits),
            "environment_feedback": "go on:",
            "done": self.turns == {TURNS},
        }}


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(Instance)
"""

RAISING_REWARD = """
import itertools

calls = itertools.count()

def reward_func(queries, prompts, labels, **_):
    import torch

    if next(calls) >= {good_calls}:
        raise KeyError("gold answer of " + prompts[0].strip())
    digits = [sum(c.isdigit() for c in q[len(p):]) / max(1, len(q) - len(p)) for q, p in zip(queries, prompts)]
    return {{"rewards": torch.tensor(digits)}}
"""

MEAN, STD = -3.0, 10.0
"""Of the reward model: rewards near 0.3. Without them they would be near 0."""


def write_ending_policy(folder: Path) -> None:
    """In `ending` the job's policy, whose turns also end at `ENDS`."""
    shutil.copytree(folder / "policy", folder / "ending")
    (folder / "ending" / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, *ENDS]}))


def write_reward_model(folder: Path) -> None:
    """In `scorer` a random reward model with a mean and a standard deviation."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForSequenceClassification

    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(folder / "plain", num_labels=1)
    config.mean, config.std = MEAN, STD
    Qwen2ForSequenceClassification(config).to(torch.bfloat16).save_pretrained(folder / "scorer")
    AutoTokenizer.from_pretrained(folder / "plain").save_pretrained(folder / "scorer")


def scores(folder: Path, responses: list[Any]) -> list[float]:
    """Rewards of recorded responses by the reward model in `scorer`, computed with transformers alone."""
    import torch
    from transformers import Qwen2ForSequenceClassification

    model = Qwen2ForSequenceClassification.from_pretrained(folder / "scorer", dtype=torch.float32)
    with torch.no_grad():
        raw = [
            model.score(model.model(torch.tensor([each.ids])).last_hidden_state[0, -1]).item()
            for each in responses
        ]
    return [(one - MEAN) / STD for one in raw]


class RewardServer:
    """A server that judges every third label worth nothing, so that filtering drops its prompt.

    Attributes:
        given: prompt -> the rewards that it was given.
    """

    def __init__(self) -> None:
        self.given: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def is_worthless(label: str) -> bool:
        return int(label) % 3 == 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request, in the form of OpenRLHF's own server."""
        rewards = []
        for query, prompt, label in zip(request["query"], request["prompts"], request["labels"], strict=True):
            said = query[len(prompt) :]
            share = sum(letter.isdigit() for letter in said) / max(1, len(said))
            reward = 0.0 if self.is_worthless(label) else 0.1 + 0.8 * share
            with self._lock:
                self.given.setdefault(prompt, []).append(reward)
            rewards.append(reward)
        return {"rewards": rewards, "scores": rewards}


@contextmanager
def reward_server() -> Iterator[tuple[str, RewardServer]]:
    """A `RewardServer` on this host, and its address."""
    judge = RewardServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(judge.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/get_reward", judge
    finally:
        server.shutdown()
        server.server_close()


def saved(run: Path, role: str, step: int) -> dict[str, Any]:
    """Parameters in a checkpoint of `ACTOR` or `HEAD` (`config.checkpoints`) of one rank, as exports name them."""
    import torch

    file = run / CHECKPOINTS / role / f"global_step{step}" / "mp_rank_00_model_states.pt"
    state: dict[str, Any] = torch.load(file, weights_only=False)["module"]
    prefix = "model." if role == HEAD else ""
    return {prefix + name: tensor for name, tensor in state.items()}
