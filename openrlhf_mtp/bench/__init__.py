"""`openrlhf-mtp bench`: the measurements. Only this room and `cli` may see training and rollout together."""
