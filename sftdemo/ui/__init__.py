"""The web app: `build` puts the page together, `launch` serves it."""

from sftdemo.ui.server import build, launch

__all__ = ["build", "launch"]
