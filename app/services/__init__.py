"""What the page needs behind it: the one worker of the device, the render cache, runs and the shared
search."""
