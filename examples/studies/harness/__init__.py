"""Runs a study: arms x seeds, each an ordinary `openrlhf-mtp` run, and what they came to.

study.py        what a study is: arms, seeds, what is measured
jobs.py         an arm's job file
assets.py       the base policy, the prompts and the fresh heads that all studies share
runs.py         the runs: skipped when finished, resumed when cut off, several at a time if asked
acceptance.py   a head against its policy on held-out responses, anchor by anchor
temperatures.py the same at several temperatures, in tokens of length per nat
statistics.py   intervals over seeds, tests of pairs
contrasts.py    what a study compares: tests, Holm's adjustment, verdicts
curves.py       every step of every run as a small CSV
results.py      result.json and result.md
main.py         the command line that every study's script has
"""
