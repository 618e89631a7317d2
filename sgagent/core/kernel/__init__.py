"""Speak of the kernel's side: a table as typed values, what has to change, and its two written forms."""
