"""The method of the paper as pure numpy, torch and OpenCV functions; imports nothing else of this package."""
