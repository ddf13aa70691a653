"""Custom Metal kernels, each with a twin in plain MLX operations that defines it, and the choice between them."""
