"""Study 7: does OCC's proxy follow the true gradients, and does any coefficient gain?

checkpoints.py  where on study 6's paths; the two policies and the head there
text.py         responses to problems, as the trainer's experiences
gradients.py    g_RL and g_MTP of parts of the text, by training's own loss and joint term
proxies.py      what OCC computes from the same text
estimators.py   inner products without noise's share, the theory's coefficient, changes of the expected reward
stepping.py     steps with a coefficient, and what they change
measure.py      one checkpoint, from policies to a record
correlation.py  how well a proxy follows the true ratio
contrasts.py    what is compared, and with which expected sign
outcome.py      the records of all checkpoints, and the result
records.py      records as files
page.py         the result as Markdown and as a figure
smoke.py        tiny paths in study 6's place
"""
