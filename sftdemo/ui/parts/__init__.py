"""Pieces that the tabs are made of: HTML, charts, forms, the page's shared state, the style."""
