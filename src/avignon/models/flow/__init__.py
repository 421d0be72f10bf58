"""What families trained by flow matching share: their noise, its timesteps, target and sampler."""
