"""The exceptions that infero raises on purpose.

Every message says three things: what was given (with its value), what the limit is,
and what to do about it. Nothing here needs torch.
"""

from __future__ import annotations


class InferoError(Exception):
    """Base class of every error that infero raises on purpose."""


class LoadError(InferoError):
    """A model file or folder cannot be read: missing, truncated, corrupt or of a refused kind."""


class ConfigError(LoadError):
    """A model's configuration names something that infero does not support."""


class PromptError(InferoError, ValueError):
    """A prompt cannot be run: empty, too long for the model, or with ids outside the vocabulary."""


class ParameterError(InferoError, ValueError):
    """A sampling or engine parameter is outside its range."""


class StalePiecesError(InferoError):
    """A piece was installed after the engine was built, so the engine would run a mixture."""


class MissingPackage(InferoError, ImportError):
    """A feature needs an optional package that is not installed."""
