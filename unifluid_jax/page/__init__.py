"""What the web page checks before it uses the model."""
