"""Fine-tuning: what is taught, with which settings, in how much memory; and the steps that teach it."""
