"""The flow log: who was dropped or accepted, and by which rule."""
