"""The policy model: present, of a family that can carry a head, in a mode the head supports."""

from collections.abc import Iterator
from typing import Any

from openrlhf_mtp.config.families import FAMILIES, NATIVE_FAMILIES, RL_FAMILIES
from openrlhf_mtp.config.head_contract import policy_files
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse, warn
from openrlhf_mtp.config.rope import context_limit

SUPPORTED = (*FAMILIES, *NATIVE_FAMILIES)
"""Families that can carry a head; with `pretrain` alone, those of NATIVE_FAMILIES."""


def policy(context: JobContext) -> Iterator[Problem]:
    """The model exists; with a head, its family is supported. A Hub model that is not cached is not judged."""
    setting = "actor.model_name_or_path"
    name = context.text(setting)
    if not name:
        yield error(setting, "nothing", "the policy's folder or Hub name", "set it")
        return
    if context.look_at_files:
        yield from policy_files(name)
    config = context.model_config
    if config is None:
        return
    family = config.get("model_type")
    if context.mtp is None:
        yield from _without_head(context, config)
        return
    if "vision_config" in config:
        yield refuse(
            setting,
            f"this is a vision model ({family}), and heads are for text-only models; use one, or drop the mtp section "
            "(of Qwen3.5 openrlhf-mtp equip takes the language model out)",
        )
    elif family not in SUPPORTED:
        yield refuse(
            setting,
            f"the model family {family} has no head yet; use one of {', '.join(SUPPORTED)}, or drop the mtp section",
        )
    elif context.trains_policy and family not in RL_FAMILIES:
        yield refuse(
            setting,
            f"weights of the model family {family} cannot be sent to engines and verified there yet "
            "(sync/loaded_layers.py would have to know its layers); train its head with openrlhf-mtp pretrain, use a "
            f"model of {', '.join(RL_FAMILIES)}, or drop the mtp section",
        )


def _without_head(context: JobContext, config: dict[str, Any]) -> Iterator[Problem]:
    """OpenRLHF sends every model it knows, but only over CUDA and without adapters; the sync that replaces it elsewhere
    does not (`sync.transport.uses_own_sync`)."""
    family = config.get("model_type")
    if "vision_config" not in config and (family not in NATIVE_FAMILIES or family in RL_FAMILIES):
        return
    setting, why = (
        "actor.model_name_or_path",
        "this project's weight sync replaces OpenRLHF's, and does not know this family's layers",
    )
    if not context.host.has_cuda:
        yield refuse(
            setting,
            f"this model ({family}) needs a host with CUDA, because elsewhere {why}; run on GPUs, or use a "
            f"text model of {', '.join(FAMILIES)}",
        )
    elif context.lora_rank > 0:
        yield refuse(
            setting,
            f"this model ({family}) cannot be trained with LoRA, because with LoRA {why}; set ds.lora.rank 0, or use a "
            f"text model of {', '.join(FAMILIES)}",
        )


def unsupported_modes(context: JobContext) -> Iterator[Problem]:
    """Modes of OpenRLHF in which a head is not supported yet, and one that OpenRLHF's own sync asserts against."""
    if context.on("ds.load_in_4bit"):
        yield error(
            "ds.load_in_4bit",
            "true",
            "false: 4-bit weights cannot be sent to the engines, with or without a head, and would have to be "
            "dequantized where adapters are merged into them",
            "set false; ds.lora.rank with ds.zero_stage 3 needs the least memory of what works",
        )
    if context.mtp is None:
        return
    drop = "or drop the mtp section"
    if context.number("data.max_images_per_prompt") > 0:
        yield error(
            "data.max_images_per_prompt",
            context.number("data.max_images_per_prompt"),
            "0: vision models are not supported with a head",
            f"use text prompts, {drop}",
        )
    if context.on("ds.deepcompile"):
        yield error(
            "ds.deepcompile",
            "true",
            "false with a head: nobody has tried to compile a policy whose states the head reads on the way",
            f"set false, {drop}",
        )
    for setting, why in (
        (
            "ds.tensor_parallel_size",
            "the head's loss would have to read the output head in shards, and the weight sync to put DeepSpeed's "
            "shards together (ds.zero_stage 3 splits the weights, too)",
        ),
        (
            "ds.ring_attn_size",
            "a rank has a part of each sequence, and the head's depths read tokens, hidden states and keys beyond it "
            "(ds.packing_samples, actor.gradient_checkpointing_enable and mtp.anchor_fraction make room for long ones)",
        ),
    ):
        if context.number(setting) > 1:
            yield error(setting, context.number(setting), f"1 with a head: {why}", f"set 1, {drop}")


ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapters_of_experts(context: JobContext) -> Iterator[Problem]:
    """By default PEFT adapts experts and routers, too, as parameters of its own kind, which no merge here knows."""
    shape = context.shape
    if context.lora_rank == 0 or not context.trains_policy or shape is None or not shape.experts:
        return
    setting = "ds.lora.target_modules"
    given = context.job.flags.get(setting)
    names = given if isinstance(given, tuple) else ("all-linear",) if given is None else (given,)
    if others := [str(name) for name in names if str(name).rpartition(".")[2] not in ATTENTION_PROJECTIONS]:
        yield error(
            setting,
            ", ".join(others),
            f"some of {', '.join(ATTENTION_PROJECTIONS)} for a policy with experts: others cannot be merged for the "
            "engines",
            f"set [{', '.join(ATTENTION_PROJECTIONS)}]",
        )


def quantized(context: JobContext) -> Iterator[Problem]:
    """A checkpoint of quantized weights. A head brought along by one can be imported and exported all the same."""
    config = context.model_config
    given = None if config is None or context.mtp is None else config.get("quantization_config")
    if given:
        method = given.get("quant_method", "?") if isinstance(given, dict) else "?"
        yield refuse(
            "actor.model_name_or_path",
            f"the checkpoint's weights are quantized ({method}), and trainers and engines here hold the same weights "
            "in 16 or 32 bits; use the checkpoint that it was made from, or save a dequantized one",
        )


HELD_BY_THE_HEAD = ("embed_tokens", "lm_head")


def adapted(context: JobContext) -> Iterator[Problem]:
    """Adapters on the two matrices that the head shares."""
    given = context.job.flags.get("ds.lora.target_modules")
    if context.mtp is None or context.lora_rank == 0 or not isinstance(given, tuple):
        return
    for name in map(str, given):
        if name.rpartition(".")[2] in HELD_BY_THE_HEAD:
            yield error(
                "ds.lora.target_modules",
                name,
                f"modules of the layers with a head: it reads {name} without an adapter, while engines compute with "
                "the merged one",
                "leave it out",
            )


DROPOUTS = (
    "attention_dropout",
    "residual_dropout",
    "hidden_dropout",
    "attn_pdrop",
    "resid_pdrop",
    "embd_pdrop",
)


def dropout(context: JobContext) -> Iterator[Problem]:
    """A policy that is updated with dropout computes other log-probs than the engine that sampled, at random."""
    config = context.model_config or {}
    rates = {name: config[name] for name in DROPOUTS if config.get(name)}
    if rates and context.trains_policy:
        given = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        yield warn(
            "actor.model_name_or_path",
            f"its config.json has {given}, so updates compute the policy's log-probs with dropout, and engines sample "
            "without; set 0 there",
        )


def context_length(context: JobContext) -> Iterator[Problem]:
    """vLLM refuses a context that the model was not made for, but only after minutes of start-up."""
    limit = None if context.model_config is None else context_limit(context.model_config)
    if limit is not None and context.max_len > limit:
        yield error(
            "data.max_len",
            context.max_len,
            f"at most the model's context, {limit} tokens (max_position_embeddings and rotary scaling in its "
            "config.json)",
            f"lower it to {limit}",
        )
