"""A reward that cannot be had ends the run; OpenRLHF alone logs the exception and continues without the reward."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openrlhf")

from openrlhf_mtp.rollout.rewards import (
    RewardError,
    StrictSingleTurnExecutor,
    settle_rewards,
)


class Tokenizer:
    def __call__(self, **_: Any) -> dict[str, Any]:
        import torch

        return {"input_ids": torch.tensor([[1, 2, 3]])}

    def decode(self, tokens: list[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


class Engine:
    async def generate(self, *_: Any, **__: Any) -> Any:
        output = SimpleNamespace(token_ids=[4, 5], finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def respond(tmp_path: Path, body: str) -> dict[str, Any]:
    """One response whose reward comes from a file with this function body."""
    path = tmp_path / "reward.py"
    path.write_text(f"def reward_func(queries, prompts, labels):\n    {body}\n")
    executor = StrictSingleTurnExecutor(str(path))
    parameters = SimpleNamespace(max_tokens=8, logprobs=None)
    return asyncio.run(executor.execute("2+2=", "4", parameters, 64, Tokenizer(), Engine()))


def test_a_reward_arrives(tmp_path: Path) -> None:
    response = respond(tmp_path, "return {'rewards': 0.5, 'scores': 1.0}")
    assert (response["reward"], response["scores"]) == (0.5, 1.0)


def test_an_exception_of_the_reward_function_ends_the_run_and_is_shown(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"reward\.py failed with KeyError: 'answer'") as caught:
        respond(tmp_path, "return {'rewards': {}['answer']}")
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert cause.__traceback__ is not None


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("return None", "reward is None"),
        ("return {'scores': 1.0}", "reward is None"),
        ("return {'rewards': float('nan')}", "reward is nan"),
        ("return {'rewards': 1.0, 'scores': float('inf')}", "scores is inf"),
        ("return {'rewards': [1.0, 0.0]}", r"reward is \[1\.0, 0\.0\], expected one finite number"),
        ("return {'rewards': []}", r"reward is \[\], expected one"),
        ("return {'rewards': 'high'}", "reward is 'high', expected one"),
    ],
    ids=["nothing", "no reward", "nan", "infinite score", "two rewards", "empty list", "text"],
)
def test_a_reward_that_is_no_number_ends_the_run(body: str, shown: str, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=shown) as caught:
        respond(tmp_path, body)
    assert "'2+2='" in str(caught.value)


@pytest.mark.parametrize(
    "value", ["[0.5]", "(0.5,)", "[[0.5]]", "torch.tensor(0.5)", "torch.tensor([0.5])", "numpy.float32(0.5)"]
)
def test_one_value_in_a_list_a_tensor_or_an_array_is_a_reward(value: str, tmp_path: Path) -> None:
    response = respond(tmp_path, f"import numpy, torch; return {{'rewards': {value}, 'scores': {value}}}")
    assert (response["reward"], response["scores"]) == (0.5, 0.5)
    assert type(response["reward"]) is float


def test_an_answer_that_is_no_dictionary_is_named(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"reward\.py failed with TypeError: the answer is \[0\.5\]"):
        respond(tmp_path, "return [0.5]")


class Server(BaseHTTPRequestHandler):
    """Answers as OpenRLHF documents and its own `serve_rm` does: JSON lists, one value a query."""

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
        scores = [0.25 for _ in queries]
        body = json.dumps({"rewards": scores, "scores": scores, "extra_logs": {"dummy": scores}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_reward_server_that_answers_with_lists_is_understood() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        executor = StrictSingleTurnExecutor(f"http://127.0.0.1:{server.server_port}/get_reward")
        parameters = SimpleNamespace(max_tokens=8, logprobs=None)
        response = asyncio.run(executor.execute("2+2=", "4", parameters, 64, Tokenizer(), Engine()))
    finally:
        server.shutdown()
        server.server_close()
    assert (response["reward"], response["scores"]) == (0.25, 0.25)


def test_many_responses_at_once_each_get_their_own_error(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text(
        "def reward_func(queries, prompts, labels):\n"
        "    if labels[0] == 'bad':\n        raise ValueError('no answer for ' + prompts[0])\n"
        "    return {'rewards': 1.0}\n"
    )
    executor = StrictSingleTurnExecutor(str(path))
    parameters = SimpleNamespace(max_tokens=8, logprobs=None)

    async def all_of_them() -> list[Any]:
        calls = [
            executor.execute(
                f"prompt {n}", "bad" if n == 3 else "good", parameters, 64, Tokenizer(), Engine()
            )
            for n in range(6)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(all_of_them())
    assert [isinstance(result, RewardError) for result in results] == [n == 3 for n in range(6)]
    assert "no answer for prompt 3" in str(results[3])


def test_a_reward_that_a_model_gives_later_is_let_pass() -> None:
    settle_rewards([{"reward": None, "scores": None, "prompt": "", "label": ""}])
