"""Rollout time over RL: whole rollouts of recorded steps, with and without drafts, in turns on one machine.

arms.py      what is compared, and the contrasts that were fixed before
points.py    a policy, the heads that drafted for it and its recorded rollout, as study 6 or the real run leave them
timing.py    one point: `openrlhf-mtp bench rollout --recorded` with all arms
rewards.py   rewards of responses that end by themselves, with drafts and without
outcome.py   points and rewards in numbers, and the result
study.py     the command line
"""
