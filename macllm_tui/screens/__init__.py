"""The screens: the chat, and those that are opened over it."""
