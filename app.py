"""The web app: `python app.py`, or the entry point of a Space."""

import sys

from sftdemo.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
