"""The six tasks; each module has run(context: TaskContext) -> TaskResult, and `run_task` calls the one of a name."""

from importlib import import_module

from evaluation.config import TaskName
from evaluation.tasks.context import TaskContext, TaskResult


def run_task(name: TaskName, context: TaskContext) -> TaskResult:
    """The rows and pictures of a task.

    Raises:
        UserError: a region has cases but none in a split that the task needs.
    """
    return import_module(f"evaluation.tasks.{name.replace('-', '_')}").run(context)
