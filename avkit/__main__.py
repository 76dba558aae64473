"`python -m avkit ...` is `avkit ...`, so that `torchrun -m avkit train ...` starts many processes."
import sys
from avkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
