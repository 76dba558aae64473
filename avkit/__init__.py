__version__ = "0.1.0"


def __getattr__(name):
    "`avkit.predict(...)` without an import of its own: the module, which can be called"
    if name != "predict": raise AttributeError(f"module 'avkit' has no attribute {name!r}")
    import importlib
    return importlib.import_module("avkit.predict")
