"""From an OpenRLHF launch script to a job file.

The script is read, never run: `lexer` cuts it into words, `script` follows its assignments and finds its commands,
`expansion` computes what the shell would without asking the machine, `launches` finds `train_ppo_ray`, `arguments`
reads its flags as argparse does, `translation` gives them today's names, `job_text` writes the file.
"""
