"""The model of a product: saved, loaded, applied to new images."""
