# Its names are made while it runs: pyright would read 4,000 files to know less than this
from typing import Any

def __getattr__(name: str) -> Any: ...
