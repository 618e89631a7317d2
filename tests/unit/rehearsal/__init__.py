"""What a rehearsal sends, and how it understands what the kernel did."""
