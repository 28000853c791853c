"""Whether an answer is what was asked for: its form, or its calls of functions."""
