"""Text to token ids and back: tokenizers, chat templates, streaming detokenizer. Never imports mlx."""
