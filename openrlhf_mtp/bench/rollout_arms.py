"""The engines of a whole rollout's arms, all alive in this process, and one rollout by one of them.

Equal work for all arms: response i has the same prompt and the same number of tokens everywhere, because end tokens are
ignored and the limit of new tokens is the request's own. The text differs, as any two samples do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrlhf_mtp.bench.drafting import Drafting
from openrlhf_mtp.bench.harness import now
from openrlhf_mtp.bench.requests import Request, longest
from openrlhf_mtp.bench.rollout_engine import start_engine, stop_engines
from openrlhf_mtp.bench.timeline import Emission, Step, Timeline
from openrlhf_mtp.config.head_contract import Sampling
from openrlhf_mtp.config.settings.mtp import MTPSettings

_SERIAL = itertools.count()
"""Requests of one engine never share a name."""


@dataclass(frozen=True)
class WholeRollout:
    """The rollout that all arms do.

    Attributes:
        requests: all start at once.
        end_tokens: whose text after them is told apart in the figures.
        history: recorded responses that suffix drafts may also come from, as of earlier RL steps.
        prefix_caching: of prompts, within a rollout; the cache is empty when one begins.
    """

    requests: Sequence[Request]
    end_tokens: frozenset[int] = frozenset()
    history: Sequence[Request] = ()
    prefix_caching: bool = False


@dataclass
class ArmEngine:
    """An arm with its engine."""

    arm: Drafting
    engine: Any
    work: WholeRollout

    def roll_out(self, requests: Sequence[Request] | None = None) -> Timeline:
        """All responses, from the full batch to the last one.

        Args:
            requests: others than the arm's own, to warm up.

        Raises:
            RuntimeError: a response has another length than it was forced to.
        """
        self._forget()
        chosen = self.work.requests if requests is None else requests
        rollout = _Running(chosen, self.work.end_tokens)
        core = self.engine.llm_engine
        start = now()
        for name, prompt, parameters in rollout.submissions():
            core.add_request(name, prompt, parameters)
        while core.has_unfinished_requests():
            outputs = core.step()
            rollout.note(now() - start, outputs)
        return rollout.timeline()

    def _forget(self) -> None:
        """Take away what earlier rollouts left: prompts in the cache, responses in the suffix tree."""
        self.engine.reset_prefix_cache()
        if self.arm.method == "suffix":
            history = [(each.prompt, each.recorded) for each in self.work.history]
            self.engine.collective_rpc(plant_suffix_tree, args=(history,))


def plant_suffix_tree(worker: Any, history: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    """Put a new suffix tree, with these prompts and responses alone, into a worker whose engine drafts from one."""
    from arctic_inference.suffix_decoding import SuffixDecodingCache

    drafter = worker.model_runner.drafter
    used = drafter.suffix_cache
    tree = SuffixDecodingCache(
        max_tree_depth=used.max_tree_depth, max_cached_requests=used.max_cached_requests
    )
    for number, (prompt, response) in enumerate(history):
        name = f"history-{number}"
        tree.start_request(name, list(prompt))
        tree.add_active_response(name, list(response))
        tree.stop_request(name)
    drafter.suffix_cache = tree


@dataclass
class _Running:
    """A rollout while it runs."""

    requests: Sequence[Request]
    end_tokens: frozenset[int]
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    drafted: int = 0
    accepted: int = 0

    def submissions(self) -> Iterator[tuple[str, Any, Any]]:
        """Each request as vLLM's engine takes it; the log-probs are those that a job's rollouts ask for."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        for number, request in enumerate(self.requests):
            name = f"{next(_SERIAL)}"
            self.numbers[name] = number
            parameters = SamplingParams(
                temperature=1.0,
                max_tokens=request.tokens,
                ignore_eos=True,
                detokenize=False,
                logprobs=1,
                output_kind=RequestOutputKind.DELTA,
            )
            yield name, TokensPrompt(prompt_token_ids=list(request.prompt)), parameters

    def note(self, at: float, outputs: Sequence[Any]) -> None:
        """Enter a step's outputs, which hold its new tokens alone."""
        emitted = []
        for output in outputs:
            (part,) = output.outputs
            number = self.numbers[output.request_id]
            if part.token_ids:
                emitted.append(Emission(number, len(part.token_ids), number in self.ended))
                self.lengths[number] = self.lengths.get(number, 0) + len(part.token_ids)
            if not self.end_tokens.isdisjoint(part.token_ids):
                self.ended.add(number)
            if output.finished and part.spec_decode_metrics is not None:
                self.drafted += part.spec_decode_metrics.num_draft_tokens
                self.accepted += sum(part.spec_decode_metrics.per_step_accepted)
        self.steps.append(Step(at, tuple(emitted)))

    def timeline(self) -> Timeline:
        """The finished rollout."""
        got = [self.lengths.get(number, 0) for number in range(len(self.requests))]
        wanted = [request.tokens for request in self.requests]
        if got != wanted:
            raise RuntimeError(f"responses of {got} tokens, expected the forced lengths {wanted}")
        return Timeline(self.steps, got, self.drafted, self.accepted)


def context_of(requests: Sequence[Request], arms: Sequence[Drafting], depths: int) -> int:
    """Tokens of the longest sequence with the longest draft after it, and the one that the target adds."""
    return longest(requests) + max(arm.longest_draft(depths) for arm in arms) + 1


@contextmanager
def running_arms(
    model_dir: Path,
    mtp: MTPSettings,
    arms: Sequence[Drafting],
    work: WholeRollout,
    started: Callable[[str], None] = lambda _: None,
) -> Iterator[Mapping[str, ArmEngine]]:
    """An engine for each arm, for the time of a `with`.

    Args:
        model_dir: the policy.
        mtp: the engine's settings; see `Drafting.overrides`.
        arms: in the order in which they start.
        work: its requests decide how large batch, context and cache are, the same for all arms.
        started: called with an arm's name when its engine is up.
    """
    context = context_of(work.requests, arms, mtp.depths)
    sampling = Sampling(max_len=longest(work.requests))
    engines: dict[str, ArmEngine] = {}
    try:
        for arm in arms:
            engine = start_engine(
                model_dir,
                arm.overrides(mtp, str(model_dir), sampling),
                max_model_len=context,
                enable_prefix_caching=work.prefix_caching,
                share=1.0 / len(arms),
            )
            engines[arm.name] = ArmEngine(arm, engine, work)
            started(arm.name)
        yield engines
    finally:
        stop_engines(*(each.engine for each in engines.values()))
