"""``python -m dataserver``: the command line, by the interpreter that runs it."""

from dataserver.cli import main

if __name__ == "__main__":
    main()
