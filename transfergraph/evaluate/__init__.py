"How right are the methods? The part can be called: `transfergraph.evaluate(zoo, methods)` is `leave_one_out.evaluate`."

import sys
from importlib import import_module
from types import ModuleType


class _Callable(ModuleType):
    # Once a part is imported, its name in the package is the part, whatever stood there before. So that
    # `transfergraph.evaluate` means one thing in every order of imports, the part itself does what its function does.
    def __call__(self, *args, **options):
        return import_module(f"{__name__}.leave_one_out").evaluate(*args, **options)


sys.modules[__name__].__class__ = _Callable
