"""Model of a product: saving, loading, and prediction for new images."""
