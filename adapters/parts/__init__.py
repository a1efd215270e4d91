"""What detector families share: backbones, attention, positions, and the network around them."""
