"""Task-specific teacher distillation (paper section 3.3): pseudo-labels, objectives, learning."""
