"""Benchmarks: timings and memory, printed, never asserted."""
