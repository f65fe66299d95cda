"""How diverse data sets and selections are: NovelSum, rankings, random subsets to compare with."""

from novelsum.called import can_be_called

can_be_called(__name__)
