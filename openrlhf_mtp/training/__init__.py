"""The trainer side: the policy's step with the head in it, and the stage before RL.

| module | holds |
|---|---|
| `policy_trainer`, `ray_actor` | OpenRLHF's PPO trainer with a head in it; the Ray actor around it |
| `observed_policy`, `trunk` | the policy's forward pass, observed; the matrices that the head shares with it |
| `head_steps`, `step_inputs` | both ends of an optimizer step for the head; what is fixed at its start |
| `head_trainer`, `head_batch`, `head_engine` | train the head on a batch; the batch; the head's DeepSpeed engine |
| `plain_engine` | AdamW around a head without DeepSpeed, for measurements and studies |
| `head_metrics`, `held_out`, `head_average` | its metrics, its acceptance on held-out responses, its moving average |
| `schedule`, `advantage_weights` | the objective of a head step; the weights of its samples |
| `joint` | the joint regimes: the term in the policy's loss, and OCC's coefficient |
| `pretrain` | the stage before RL |
| `controller` | the controller, a Ray actor: prompts, samples, experience, the loop over RL steps |
| `cut_responses` | responses that were cut at their limit: when a user is told |
| `weight_source` | the weights that are sent to the engines |
| `finite`, `reduce`, `stopwatch` | finite numbers only; sums over ranks; times |
"""
