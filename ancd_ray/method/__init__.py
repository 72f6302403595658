"""The paper: pure numpy, torch and OpenCV functions that import nothing else of this package."""
