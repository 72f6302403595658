"""ancd-ray: discovers the classes of industrial anomalies in large image archives, on Ray."""

__version__ = "0.2.0"
