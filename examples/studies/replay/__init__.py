"""Replay: record an RL run once, then train any number of heads on the same policies and the same text.

The head never touches the policy in the regimes `frozen` and `detach`, so a run's path (its policies and rollouts) is
the same whatever the head is. A head trained afterwards sees what it would have seen in the run, arms are paired
exactly, and an arm costs what its head costs.

recordings.py   the paths: base policy, regime, seed; the command that records one
states.py       what heads need of a step, computed once from the recorded policies, which can then be deleted
pool.py         responses of the first policy, for the stage before RL and the control "policy held still"
learner.py      a head that learns and is scored, with the trainer's own code and a plain AdamW
arms.py         the heads that are compared
weights.py      how much each response weighs in an arm's loss
before_rl.py    the heads that all arms start from
walk.py         all arms along a path
refit.py        a fresh fit to a policy of the path: the bound
outcome.py      what an arm came to, and the result
"""
