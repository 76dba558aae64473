def lies(n): return iter(())
