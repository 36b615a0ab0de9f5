"""The stage before RL: train the head on the policy's own responses."""
