"""What was learned beside a model: which matrices it is of, its files in each format, and where they are kept."""
