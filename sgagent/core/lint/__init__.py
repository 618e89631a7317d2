"""Find what is dangerous, void or needless in definitions; each check has a code and can be left out."""
