"""Show a person how the agent is doing: pages of plain HTML, made from what is on the board."""
