"""Side-by-side benchmarks; each prints a table and writes JSON. They import the other packages."""
