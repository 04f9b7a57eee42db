"""How fast sftdemo is against its peers and the machine's own limits, measured in one run: `python -m benchmarks`."""
