"""Classes that keep their identity: ids and names that outlive the models that find the classes."""
