"""How do time and memory of avkit's commands grow with the clips? Each as a user types it, from the
start of Python to its end, on a table with tiny files, on tables of features, or on tiny stored
arrays: what `scale.py` asks of the stages in them.

Compared to: the first size; linear is an exponent of 1.

Takes: a minute and a half with `--quick`, an hour with 100,000 clips."""

import sys
from scale import main

if __name__ == "__main__":
    main(["--commands", *sys.argv[1:]])  # which knows `--out`
