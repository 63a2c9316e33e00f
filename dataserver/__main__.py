"""``python -m dataserver``: the command line, run with this interpreter."""

from dataserver.cli import main

if __name__ == "__main__":
    main()
