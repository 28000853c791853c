"""Clusters as data: what their GPUs are called, on which nodes they are, and what they cost."""
