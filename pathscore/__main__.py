"""`python -m pathscore VERB …` does the same as the console script `pathscore`."""

import sys

from pathscore.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
