"""What training will take, before it starts."""
