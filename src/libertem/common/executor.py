"""Face: the contract of executors at its historic path."""

from libertem.common.protocols import TaskProtocol
from libertem.common.taskcomm import (
    NoopCommHandler,
    SimpleWorkerQueue,
    TaskCommHandler,
    WorkerContext,
    WorkerQueue,
    WorkerQueueEmpty,
)
from libertem.exceptions import ExecutorError, JobCancelledError
from libertem.executor.base import AsyncJobExecutor, Environment, JobExecutor
from libertem.executor.process_queue import SimpleMPWorkerQueue

GenericTaskProtocol = TaskProtocol

__all__ = [
    "AsyncJobExecutor",
    "Environment",
    "ExecutorError",
    "GenericTaskProtocol",
    "JobCancelledError",
    "JobExecutor",
    "NoopCommHandler",
    "SimpleMPWorkerQueue",
    "SimpleWorkerQueue",
    "TaskCommHandler",
    "TaskProtocol",
    "WorkerContext",
    "WorkerQueue",
    "WorkerQueueEmpty",
]
