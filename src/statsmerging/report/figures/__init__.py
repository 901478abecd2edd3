"""Figures for print: each a small function from a tidy table to a matplotlib figure."""
