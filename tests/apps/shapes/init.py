# An init program: starts its command, passes SIGTERM on to it, and ends with it. In: a command. Out: its exit code.
import signal
import subprocess
import sys

child = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
sys.exit(child.wait())
