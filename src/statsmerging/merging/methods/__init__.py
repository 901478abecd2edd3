"""Merging methods: one file each, one pure function of the task-vector bank."""

from statsmerging.merging.methods.simple_average import simple_average
from statsmerging.merging.methods.task_arithmetic import task_arithmetic

__all__ = ["simple_average", "task_arithmetic"]
