"""What the commands of the command line do; `cli.py` only parses and calls."""
