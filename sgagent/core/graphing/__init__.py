"""Draw who may talk to whom, as definitions say it."""
