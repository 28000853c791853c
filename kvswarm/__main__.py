"""`python -m kvswarm` is `kvswarm`."""

from kvswarm.cli import main

main()
