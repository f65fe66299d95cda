"""NovelSum of data sets and of selections, and other ways to select that are compared with NovelSelect."""
