"""Study 5: objectives where heads are limited.

plan.md      what is compared, what is expected and when it stops, written before the first run
study.py     arms, contrasts and the command line
scale.py     sizes, and where files are
stages.py    one piece of the work: a policy, its samples, a warm head, a pilot, a run
work.py      pieces of work as processes
samples.py   responses of a policy with its hidden states, made once and read by every run
losses.py    what an arm minimizes: the product's objectives, and SkyRL's top-k cross-entropy
runs.py      one run: a head, one pass over a policy's responses, its walk on held-out ones
shown.py     what of a run goes into table and figure, also of the real model's
tuning.py    the learning rate of each arm, by short runs on seeds of their own
warm_up.py   beside the study: how long a fresh head has to train with KL before e2e TV
"""
