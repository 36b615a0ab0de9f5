"""OCC (arXiv 2605.28184): the joint regimes' term in the policy's loss and its tracked coefficient.

| module | holds |
|---|---|
| `term` | the term: the head's log-probs of the action tokens, attached to the policy, and the loss on them |
| `coefficient` | what decides a coefficient, and from what; the fixed one |
| `occ` | the paper's coefficient; smoothing and bounds |
| `occ_released` | the coefficient of the paper's public code, with the same methods, for comparison |
| `metrics` | the coefficient, OCC's two terms and the term's loss, as metrics |
"""
