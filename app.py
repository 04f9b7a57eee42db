"""The web app: `python app.py`, or the entry point of a Space."""

from sftdemo.ui import launch

if __name__ == "__main__":
    launch()
