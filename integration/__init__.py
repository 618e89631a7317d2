"""Tests on a real kernel: private network namespaces, real packets, root needed."""
