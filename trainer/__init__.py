"""What is learned: directories in, a run directory out. Knows no cloud at all."""
