"""NovelSum of data sets and of selections, and other ways to select that are compared with NovelSelect."""

from novelsum.called import can_be_called

can_be_called(__name__)
