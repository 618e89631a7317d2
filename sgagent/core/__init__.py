"""Values in, values out: what groups mean and how the kernel is told.

Nothing in this package touches anything outside: no files, sockets, clocks, processes or logs. An import
contract holds it to that.
"""
