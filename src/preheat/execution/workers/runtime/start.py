"""Started as a script: loads the modules beside it under a name of their own, then runs one of two programs.

    start.py zygote FD SETTINGS   the zygote, commanded through descriptor FD
    start.py serve ROOT           the runtime alone, against AWS_LAMBDA_RUNTIME_API, below a wrapper script;
                                  ROOT is the directory whose package `preheat` is hidden from the function
"""

import importlib
import importlib.util
import os
import sys

PACKAGE = "_lambda_runtime"


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    zygote = importlib.import_module(f"{PACKAGE}.zygote")
    if sys.argv[1] == "zygote":
        zygote.main(int(sys.argv[2]), sys.argv[3])
        return 0
    sys.meta_path.insert(0, zygote.Hidden(sys.argv[2]))
    return importlib.import_module(f"{PACKAGE}.__main__").main()


if __name__ == "__main__":
    sys.exit(main())
