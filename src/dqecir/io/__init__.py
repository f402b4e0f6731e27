"""Files, downloads, devices, progress, clocks and contact sheets."""
