"""`python -m avignon`, and so `accelerate launch -m avignon`."""

from avignon.cli.main import main

main()
