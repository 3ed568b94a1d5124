"""`python -m worker`: the same as `review-worker`."""

from worker.cli import main

main()
