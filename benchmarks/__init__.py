"""Measure the speed, start-up time and memory of the library: ``python -m benchmarks``.

| module | what it does |
|---|---|
| `cases`, `targets` | which runs are measured, and what they have to reach |
| `inputs`, `workloads` | the files, and what is computed over them |
| `frames`, `formats`, `storage` | what the files show, how they are written, and where they lie |
| `limit` | what the machine can do at best |
| `client`, `worker` | each library in a process of its own |
| `measure`, `opening`, `startup`, `memory` | the measurements |
| `executors`, `executor_runs` | executors compared: ``--executors`` |
| `scaling` | costs of tasks and merging, and a model of large clusters: ``python -m benchmarks.scaling`` |
| `rows`, `table` | figures and verdicts, and showing them |

Only `workloads`, `worker`, `executor_runs` and `first_result` run in processes of the reference; they import
no other module.
"""
