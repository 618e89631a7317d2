"""Fetch definitions from an HTTPS server, and trust nothing that it says without a bound."""
