"""Records: what callers write and read, one module a kind."""
