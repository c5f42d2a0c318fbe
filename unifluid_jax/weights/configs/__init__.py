"""What transformers' and diffusers' config.json say of each part, and back."""
