"""Worker processes that work on data while it arrives: the executor for live data.

Tasks are handed out in the order of their partitions, and results are merged in that order. While a worker
processes a partition, the main process forwards the data of that partition to it, or that of a later one to
another worker.
"""

from libertem.executor.pipelined.executor import PipelinedExecutor

__all__ = ["PipelinedExecutor"]
