"""The controller of an RL run, a Ray actor: prompts, samples, experience, and the loop over RL steps."""
