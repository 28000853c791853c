"""kvswarm: the load tester for LLMs on KServe, on top of Locust."""

__version__ = "0.1.0"
