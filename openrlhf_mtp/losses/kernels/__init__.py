"""Kernels over the vocabulary, chunked torch and Triton: statistics of two distributions, log-probs of given tokens."""
