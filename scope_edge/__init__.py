"""scope-edge: choose between the model on the device and the one in the cloud, before either runs."""

__version__ = "0.1.0"
