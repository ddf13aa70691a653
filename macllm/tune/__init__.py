"""Fine-tuning: what is taught, with which settings, in how much memory. What is here needs no mlx."""
