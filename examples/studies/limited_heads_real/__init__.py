"""Study 5 on a real language model: the arms that matter, on SmolLM2-135M-Instruct and responses of its own.

study.py     arms, contrasts and the command line; runs, samples and figures are study 5's
stages.py    one piece of the work in a process of its own
prompts.py   chat prompts of one length side by side
"""
