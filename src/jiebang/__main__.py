"""`python -m jiebang`."""

from jiebang.cli import main

main()
