"""One tree of errors. A message is one sentence: what happened, where, what to do about it."""


class MacllmError(Exception):
    """Something failed. The command line prints the message and exits with ``exit_code``."""

    exit_code = 1


class InputError(MacllmError):
    """The user's input (name, option, file, config) cannot be used as it is."""

    exit_code = 2


class OptionError(InputError):
    """An option's value is out of range or does not go with another."""


class ConfigError(InputError):
    """A model's configuration is missing, damaged or asks for something not supported."""


class CheckpointError(InputError):
    """A weight file is missing, truncated or holds other tensors than the model needs."""


class TokenizerError(InputError):
    """A tokenizer or chat template cannot be read or used."""


class SourceError(InputError):
    """A model source (catalogue name, repository, package, path) does not exist or is not allowed."""


class ContextError(InputError):
    """A prompt does not fit the model's context window."""


class DownloadError(MacllmError):
    """A transfer failed: offline, disk full, damaged. Running the command again resumes it."""


class MemoryLimitError(MacllmError):
    """The model, its cache or the operation does not fit this machine's memory."""


class Cancelled(MacllmError):
    """The user interrupted the operation."""

    exit_code = 130
