"""The rules, a file for each theme: a tuple `RULES`, and the small functions that they check by."""
