"""Look at the sessions that are open on this host: which ones a policy cuts, and what becomes of them."""
