"""What the server has done for all processes that are forked from it: it knows the hash of the code
of a run, which half of a short run goes to."""

from avkit.training.record import code_hash

code_hash("ravdess")
