"""Generated demo archives: textured metal tiles with four kinds of defect."""
