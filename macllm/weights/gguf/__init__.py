"""GGUF, llama.cpp's format of models: what its metadata and tensors mean, and how ours are said in it.

``config`` reads a file's metadata as the config that Hugging Face keeps for the model, ``metadata`` writes it back;
``names`` says where each tensor lies and how; ``architectures`` holds what differs between llama.cpp's architectures.
"""
