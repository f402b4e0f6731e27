"""Models: compose queries, and read, write, name and convert model folders."""
