"""`python -m engine`: the same commands as `gangway engine`."""

from engine.cli import main

main()
