"""Write what a package carries beside the program: man pages, completions and an example configuration.

Nothing of it is written by hand: it follows from the commands' own parsers and from docs/, so it can't fall
behind. ``python3 -m release FOLDER`` writes all of it.
"""
