"""OpenRLHF's flags that nothing would read, or that do not mean what they look like, are warnings."""

import pytest


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["vllm.sync_backend=gloo"],
            "vllm.sync_backend: this has no effect: with a head, mtp.sync.backend decides",
        ),
        (["vllm.sync_with_ray=true"], "vllm.sync_with_ray: this has no effect: with a head"),
        (
            ["critic.adam.lr=1e-5", "critic.num_nodes=2"],
            "critic: algo.advantage.estimator group_norm trains no critic, so this has no effect: "
            "critic.adam.lr, critic.num_nodes",
        ),
        (
            ["ds.attn_implementation=flash_attn_2"],
            "ds.attn_implementation: got flash_attn_2, expected one of",
        ),
        (
            ["ds.lora.rank=8", "ds.lora.target_modules=q_proj,v_proj"],
            "ds.lora.target_modules: got q_proj,v_proj, expected a list of module names; write it as [q_proj, v_proj]",
        ),
        (["ds.lora.rank=8", "ds.lora.target_modules=all-linear"], "ds.lora.target_modules: got all-linear"),
    ],
)
def test_what_openrlhf_would_ignore_or_misread_is_a_warning(problems, overrides, expected):
    assert [text.partition(": ")[2][: len(expected)] for text in problems(*overrides, gpus=8)] == [expected]


@pytest.mark.parametrize(
    "override",
    ["ds.lora.target_modules=[q_proj, v_proj]", "ds.attn_implementation=kernels-community/flash-attn3"],
)
def test_what_is_written_right_is_no_warning(problems, override):
    assert problems("ds.lora.rank=8", override, gpus=8) == []


def test_without_a_head_or_with_a_critic_these_settings_are_read(problems):
    assert problems("vllm.sync_backend=gloo", "mtp=null") == []
    critic = ("algo.advantage.estimator=gae", "critic.adam.lr=1e-5", "critic.num_gpus_per_node=1")
    assert problems(*critic) == []


@pytest.mark.parametrize("shares", ["0.5", "0.5,0.4", "1.5,-0.5", "a,b", "0.5 0.5", "nan,nan"])
def test_shares_of_data_sets_that_do_not_add_up_are_refused(problems, shares):
    found = problems("data.prompt_dataset=Org/a,Org/b", f"data.prompt_probs='{shares}'", look_at_files=False)
    (text,) = [text for text in found if "data.prompt_probs" in text]
    assert text.startswith(f"error: data.prompt_probs: got {shares}, expected 2 share(s)")


def test_shares_of_data_sets_that_add_up_are_accepted(problems):
    mixed = ("data.prompt_dataset=Org/a,Org/b,Org/c", "data.prompt_probs='0.7,0.2,0.1'")
    assert problems(*mixed, look_at_files=False) == []
