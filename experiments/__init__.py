"""One config a file; see the README for how to write your own."""
