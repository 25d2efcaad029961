"""What every test shares: one thread per process, and a Ctrl-C that reaches the programs they start."""

import os
import signal

# Small networks gain nothing from more threads, and real children want the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell that starts pytest in the background lets it ignore SIGINT, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
