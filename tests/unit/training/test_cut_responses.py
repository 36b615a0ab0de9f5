"""The share of responses that were cut at their limit, and the words for it."""

from types import SimpleNamespace

import pytest

from openrlhf_mtp.training.cut_responses import cut_notice, pretrain_limit, rollout_limit, share_cut


@pytest.mark.parametrize(
    ("cut", "share"),
    [([], None), ([True, False, False, True], 0.5), ([False], 0.0), ([None], None), ([True, None], None)],
)
def test_the_share_is_known_only_where_each_response_says_it(
    cut: list[bool | None], share: float | None
) -> None:
    assert share_cut(cut) == share


def test_the_notice_names_the_setting_that_cuts() -> None:
    assert cut_notice(0.866, "rollout.max_new_tokens", 64).startswith(
        "87 % of the responses were cut at rollout.max_new_tokens = 64:"
    )


@pytest.mark.parametrize(
    ("rollout", "pretrain", "expected", "before_rl"),
    [
        (64, None, ("rollout.max_new_tokens", 64), ("rollout.max_new_tokens", 64)),
        (64, 32, ("rollout.max_new_tokens", 64), ("mtp.pretrain.max_new_tokens", 32)),
        (None, None, ("data.max_len", 128), ("data.max_len", 128)),
    ],
)
def test_the_limit_is_the_one_that_the_engines_get(
    rollout: int | None, pretrain: int | None, expected: tuple[str, int], before_rl: tuple[str, int]
) -> None:
    args = SimpleNamespace(
        rollout=SimpleNamespace(max_new_tokens=rollout),
        data=SimpleNamespace(max_len=128),
        mtp=SimpleNamespace(pretrain=SimpleNamespace(max_new_tokens=pretrain)),
    )
    assert rollout_limit(args) == expected
    assert pretrain_limit(args) == before_rl
