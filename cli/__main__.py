"""`python -m fisherkit_cli`."""

from .main import main

main()
