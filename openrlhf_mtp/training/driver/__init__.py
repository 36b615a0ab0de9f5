"""The Ray driver's side of an RL run: prompts, samples, experience, and the loop over steps."""
