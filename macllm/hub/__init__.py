"""Where models come from and where they are kept: catalogue, downloads, installed models. Never imports mlx."""
