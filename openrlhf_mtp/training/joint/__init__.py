"""OCC (arXiv 2605.28184): the joint regimes' term in the policy's loss and its tracked coefficient."""
