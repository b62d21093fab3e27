"""What is made once on a host before machines can run: runtime, images, agent bundle."""
