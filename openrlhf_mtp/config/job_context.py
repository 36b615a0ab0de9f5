"""A job on a host: what checks and plans are computed from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.families import FAMILIES
from openrlhf_mtp.config.head_contract import Sampling, head_folder
from openrlhf_mtp.config.job import Job
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.machine.precision import Precision, choose, with_rollout_dtype
from openrlhf_mtp.config.model_files import ModelShape, model_folder, model_shape, read_model_config
from openrlhf_mtp.config.reading.paths import is_local
from openrlhf_mtp.config.run_files import CHECKPOINTS
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.tokenizer_files import TokenizerFiles, read_tokenizer
from openrlhf_mtp.config.updates import Updates, data_parallel_ranks


@dataclass(frozen=True)
class JobContext:
    """A job together with the machine it runs on and the way the command was called.

    Checks, the plan and the commands compute from it. Flags that several of them read have a
    name of their own here; the rest are read by `on`, `number`, `real` and `text`, and a test holds every name that is
    read so to the installed OpenRLHF's flags and their types.

    Attributes:
        job: the loaded job.
        host: this machine, or the one the job is meant for.
        cluster_gpus: GPUs of the whole cluster; None when not known.
        look_at_files: whether models, heads, data and the run folder are looked for on this machine.
        out: the run folder, when one was asked for.
        may_reuse_out: `--resume` or `--overwrite` was given.
        resumes: `--resume` was given.
        trains_policy: true for RL, whose engines follow the policy; false for the stage before it.
    """

    job: Job
    host: Host
    cluster_gpus: int | None = None
    look_at_files: bool = True
    out: Path | None = None
    may_reuse_out: bool = False
    resumes: bool = False
    trains_policy: bool = True

    @property
    def mtp(self) -> MTPSettings | None:
        """The mtp section, None for plain OpenRLHF."""
        return self.job.mtp

    def on(self, name: str) -> bool:
        """The value of a switch."""
        return bool(self.job.value(name))

    def number(self, name: str) -> int:
        """A whole number that is set or has a default."""
        value = self.job.value(name)
        assert isinstance(value, int), f"{name} is not a whole number: {value!r}"
        return value

    def real(self, name: str) -> float:
        """A number that is set or has a default."""
        value = self.job.value(name)
        assert isinstance(value, int | float), f"{name} is not a number: {value!r}"
        return float(value)

    def text(self, name: str) -> str | None:
        """A text, None when neither set nor defaulted."""
        value = self.job.value(name)
        return None if value is None else str(value)

    @property
    def policy(self) -> str:
        """The policy's folder or Hub name, "" when the job gives none."""
        return self.text("actor.model_name_or_path") or ""

    @property
    def max_len(self) -> int:
        """Longest sequence in tokens, prompt and response together."""
        return self.number("data.max_len")

    @property
    def zero_stage(self) -> int:
        """ZeRO stage of the trainers' DeepSpeed engines."""
        return self.number("ds.zero_stage")

    @property
    def lora_rank(self) -> int:
        """Rank of the policy's adapters, 0 without."""
        return self.number("ds.lora.rank")

    @property
    def dynamic_batches(self) -> bool:
        """Whether micro-batches hold as many samples as fit a number of tokens."""
        return self.on("train.dynamic_batch_enable")

    @property
    def colocates_all(self) -> bool:
        """Whether all models are asked to share the same GPUs."""
        return self.on("train.colocate_all")

    @property
    def estimator(self) -> str | None:
        """How advantages are estimated."""
        return self.text("algo.advantage.estimator")

    @property
    def precision(self) -> Precision:
        """The precision of the trainers."""
        setting = self.text("ds.param_dtype") or ""
        return choose(setting, has_cuda=self.host.has_cuda, speed=self.host.speed)

    @property
    def rollout_dtype(self) -> str:
        """Precision of the engines."""
        settings = self.mtp or MTPSettings()
        return with_rollout_dtype(settings, self.precision.name).rollout.dtype

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen reference model runs."""
        return self.real("algo.kl.init_coef") > 0

    @property
    def uses_critic(self) -> bool:
        """Whether a critic is trained."""
        return self.estimator == "gae"

    @property
    def uses_reward_model(self) -> bool:
        """Whether a reward model runs on GPUs (instead of a function, an agent or a server)."""
        return not self.text("reward.remote_url") and not self.text("train.agent_func_path")

    @property
    def colocates_engines(self) -> bool:
        """Whether vLLM shares the trainers' GPUs; in async mode it never does."""
        return self.colocates_all and not self.on("train.async_enable")

    def ranks(self, role: str) -> int:
        """GPUs of `actor`, `ref`, `critic` or `reward`."""
        return self.number(f"{role}.num_nodes") * self.number(f"{role}.num_gpus_per_node")

    @property
    def engines(self) -> int:
        """vLLM engines, 0 when the job gives none."""
        return 0 if self.job.value("vllm.num_engines") is None else self.number("vllm.num_engines")

    @property
    def engine_gpus(self) -> int:
        """GPUs of all vLLM engines."""
        return self.engines * self.number("vllm.tensor_parallel_size")

    @property
    def samples_per_step(self) -> int:
        """Responses of one rollout batch."""
        return self.number("rollout.batch_size") * self.number("rollout.n_samples_per_prompt")

    @property
    def updates(self) -> Updates:
        """The split of the job's prompts into optimizer steps."""
        shared = self.number("ds.ring_attn_size") * self.number("ds.tensor_parallel_size")
        trained = ("actor", "critic") if self.uses_critic else ("actor",)
        return Updates(
            rollout_prompts=self.number("rollout.batch_size"),
            samples_per_prompt=self.number("rollout.n_samples_per_prompt"),
            batch=self.number("train.batch_size"),
            ranks=data_parallel_ranks(*(self.ranks(role) // shared for role in trained)),
            passes=self.number("train.max_epochs"),
        )

    @cached_property
    def prompts(self) -> int | None:
        """Prompts of local JSON-lines files, None when any part of the data is elsewhere, of another form or mixed."""
        names = [name.strip() for name in (self.text("data.prompt_dataset") or "").split(",")]
        files = [Path(name) for name in names if is_local(name) and Path(name).suffix == ".jsonl"]
        if not self.look_at_files or len(files) != len(names) or not all(file.is_file() for file in files):
            return None
        if self.text("data.prompt_probs"):
            return None
        found = sum(sum(1 for line in file.open("rb") if line.strip()) for file in files)
        return min(self.number("data.max_samples"), found)

    @property
    def policy_folder(self) -> Path | None:
        """The folder that holds the policy's files, None when they are not on this machine."""
        return model_folder(self.policy) if self.policy and self.look_at_files else None

    @cached_property
    def tokenizer(self) -> TokenizerFiles | None:
        """The policy's tokenizer as its files tell, None when they are not on this machine or say too little."""
        return None if self.policy_folder is None else read_tokenizer(self.policy_folder)

    @cached_property
    def model_config(self) -> dict[str, Any] | None:
        """The policy's `config.json`, None when it is not on this machine."""
        return read_model_config(self.policy) if self.policy and self.look_at_files else None

    @cached_property
    def shape(self) -> ModelShape | None:
        """The policy's sizes, None when not known or of another family."""
        config = self.model_config
        if config is None or str(config.get("model_type")) not in FAMILIES:
            return None
        return model_shape(config)

    @property
    def checkpoints(self) -> Path | None:
        """The folder of the run's checkpoints: `ckpt.path`, or in the run folder; None when neither is known."""
        given = self.job.flags.get("ckpt.path")
        if given is not None:
            return Path(str(given))
        return None if self.out is None else self.out / CHECKPOINTS

    @property
    def head_folder(self) -> Path | None:
        """The head's folder, None without an mtp section."""
        if self.mtp is None:
            return None
        return head_folder(self.mtp.head, self.policy)

    @property
    def sampling(self) -> Sampling:
        """The job's sampling settings."""
        return Sampling(
            temperature=self.real("rollout.temperature"),
            top_p=self.real("rollout.top_p"),
            max_len=self.max_len,
        )
