"""Carry plans out in the kernel and read back what stands there."""
