"""A run, or several compared, as one HTML file to take along: no script, no network, nothing that tells of this machine."""
