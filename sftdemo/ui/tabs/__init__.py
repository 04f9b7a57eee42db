"""One class a tab, and what only that tab shows.

Components are attributes. Handlers are methods over plain values; they return or yield what changes, {component: update}.
`wire()` connects them, once all tabs are built. What a tab draws are functions that return HTML.
"""
