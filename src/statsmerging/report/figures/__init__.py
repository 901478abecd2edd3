"""Figures: one chart for paper and page, from a tidy table."""
