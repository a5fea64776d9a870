"""A script from the first line to the first result: ``python -m benchmarks.first_result WORKLOAD ARGUMENTS``.

Prints a line after each step; the parent process takes the times. Arguments are those of `Context.load`, as
JSON. Imports stand where a script would have them, as they are part of what is measured.
"""

import json
import sys


def main() -> None:
    import libertem.api

    print("import", flush=True)
    ctx = libertem.api.Context()
    print("context", flush=True)

    from benchmarks.workloads import WORKLOADS

    arguments = json.loads(sys.argv[2])
    dataset = ctx.load(arguments.pop("filetype"), **arguments)
    ctx.run_udf(dataset=dataset, udf=WORKLOADS[sys.argv[1]].udfs(tuple(dataset.shape.sig)))
    print("result", flush=True)
    ctx.close()


if __name__ == "__main__":
    main()
