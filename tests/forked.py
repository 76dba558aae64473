"""What the server has done for all processes that are forked from it: it has read the code of a
run, which half of a short run goes to (`code_hash`)."""

from avkit.training.record import code_of_run, without_docstrings

for path in code_of_run("ravdess"):
    without_docstrings(path.read_text(encoding="utf-8"))
