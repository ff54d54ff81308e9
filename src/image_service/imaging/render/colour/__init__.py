"""From what a file says about its colours to sRGB."""
