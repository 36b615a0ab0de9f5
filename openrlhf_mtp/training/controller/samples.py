"""OpenRLHF's sample generator with extra logs that cannot end a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.training.controller.extra_logs import drop_uneven, usable


class CheckedSamples(SamplesGenerator):
    """Lives where the engines are asked for rollouts: in the controller, or in its generating half in async mode."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told: set[str] = set()

    def generate_samples(self, **kwargs: Any) -> tuple[list[Any], float | None, int, bool]:
        """OpenRLHF's, with the same extra logs in all samples of one training batch."""
        samples, *rest = super().generate_samples(**kwargs)
        self._leave_out(drop_uneven([sample.info for sample in samples]))
        return samples, *rest

    def _process_response_into_experience(self, response: dict[str, Any], **kwargs: Any) -> Any:
        kept, problems = usable(response.get("extra_logs"))
        self._leave_out(problems)
        return super()._process_response_into_experience({**response, "extra_logs": kept}, **kwargs)

    def _leave_out(self, problems: dict[str, str]) -> None:
        """Say the first problem of each key; values and counts differ from rollout to rollout."""
        # OpenRLHF's parser made a list of the comma-separated reward sources
        source = self.args.train.agent_func_path or ", ".join(self.args.reward.remote_url or ["the reward"])
        for key in problems.keys() - self._told:
            say(Path(self.args.run.run_folder), f"{source}: {problems[key]}; left out of the logs")
        self._told.update(problems)
