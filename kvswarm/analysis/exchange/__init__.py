"""Runs in the formats of other tools, and theirs as run directories.

A module per format, of functions from plain data to plain data; files are read and written by
`kvswarm.commands.exchange`.
"""
