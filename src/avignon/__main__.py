"""`python -m avignon`, and so `accelerate launch -m avignon`."""

from avignon.cli import main

main()
