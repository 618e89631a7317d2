"""The meaning of policies: header space, comparison, lint and the graph of who may talk to whom."""
