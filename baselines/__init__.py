"""The methods of the benchmark, one file each: every method in this folder is found and listed."""
