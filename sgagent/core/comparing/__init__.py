"""Compare policies in meaning: exactly, as disjoint boxes of packets, never by trying some."""
