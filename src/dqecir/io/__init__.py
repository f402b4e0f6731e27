"""Files, progress, threads, clocks and contact sheets."""
