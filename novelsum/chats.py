"""By which names records hold chats: the fields of turns, and of a turn its role and its content."""

CHATS = ("messages", "conversations")
"""Fields of a chat, looked for first."""
CONTENT = ("content", "value", "text")
ROLE = ("role", "from")
SYSTEM = ("system", "developer")
"""Roles of turns that are no part of the text: a prompt that many samples share."""
