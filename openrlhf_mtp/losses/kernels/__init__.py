"""Per-row statistics of two distributions over the vocabulary, and their gradients: chunked torch and Triton."""
